//! Figures that are not a rate of bytes: of groups and of connections, one line each, both brokers beside each other.

use serde_json::{Value, json};

use super::{finite, median, medians, number, push};
use crate::servers::Who;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    Groups,
    Connections,
}

impl Table {
    const ALL: [Self; 2] = [Self::Groups, Self::Connections];

    fn name(self) -> &'static str {
        match self {
            Self::Groups => "groups",
            Self::Connections => "connections",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Groups => "groups, classic protocol, no initial rebalance delay",
            Self::Connections => "connections",
        }
    }
}

/// One value of one line, measured once.
#[derive(Debug, Clone)]
pub struct Figure {
    pub table: Table,
    /// What it is, with its unit.
    pub name: String,
    pub who: Who,
    pub round: usize,
    pub value: f64,
}

#[derive(Debug, Default)]
pub struct Figures(pub Vec<Figure>);

impl Figures {
    fn of(&self, table: Table, name: &str, who: Who) -> impl Iterator<Item = &Figure> {
        self.0.iter().filter(move |figure| figure.table == table && figure.name == name && figure.who == who)
    }

    /// How many times Kafka's figure Woodpecker's is, within each round.
    fn ratio(&self, table: Table, name: &str) -> f64 {
        median(self.of(table, name, Who::Woodpecker).filter_map(|ours| {
            let theirs = self.of(table, name, Who::Kafka).find(|theirs| theirs.round == ours.round)?;
            Some(ours.value / theirs.value)
        }))
    }

    /// Lines stand in the order in which they were first measured.
    pub fn tables(&self, text: &mut String) {
        for table in Table::ALL {
            let mut names: Vec<&str> = Vec::new();
            for figure in self.0.iter().filter(|figure| figure.table == table) {
                if !names.contains(&figure.name.as_str()) {
                    names.push(&figure.name);
                }
            }
            if names.is_empty() {
                continue;
            }
            push(
                text,
                format_args!("\n| {} | Kafka | Woodpecker | Woodpecker / Kafka |\n|---|--:|--:|--:|", table.title()),
            );
            for name in &names {
                let of = |who| readable(median(self.of(table, name, who).map(|figure| figure.value)));
                let (kafka, woodpecker) = (of(Who::Kafka), of(Who::Woodpecker));
                let ratio = number(self.ratio(table, name), 2);
                push(text, format_args!("| {name} | {kafka} | {woodpecker} | {ratio} |"));
            }
            let rounds = [Who::Kafka, Who::Woodpecker].map(|who| self.of(table, names[0], who).count());
            let most = rounds.into_iter().max().unwrap_or(0);
            push(text, format_args!("\n{}", medians(most, most)));
        }
    }

    pub fn json(&self) -> impl Iterator<Item = Value> {
        self.0.iter().map(|figure| {
            json!({
                "kind": figure.table.name(), "name": figure.name, "server": figure.who.name(),
                "round": figure.round, "value": finite(figure.value),
            })
        })
    }
}

/// Three digits that mean something.
pub fn readable(value: f64) -> String {
    let decimals = match value.abs() {
        large if large >= 100.0 => 0,
        medium if medium >= 10.0 => 1,
        _ => 2,
    };
    number(value, decimals)
}
