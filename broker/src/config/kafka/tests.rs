//! Every setting of the running broker is shown, with its value.

use super::*;

/// Changes a number or a switch; false if the setting is neither.
fn change(settings: &mut Settings, key: &keys::Key) -> bool {
    let changed = match key.value(settings).as_str() {
        "true" => "false".to_owned(),
        "false" => "true".to_owned(),
        number => match number.parse::<u64>() {
            Ok(number) => (number + 1).to_string(),
            Err(_) => return false,
        },
    };
    key.set(settings, &changed, "test").is_ok()
}

#[test]
fn every_setting_of_the_running_broker_has_a_name_and_shows_its_value() {
    let plain = format!("{:?}", Settings::default().broker);
    let mut of_the_broker = 0;
    for key in keys::all() {
        let mut settings = Settings::default();
        if !change(&mut settings, key) || format!("{:?}", settings.broker) == plain {
            continue;
        }
        of_the_broker += 1;
        let name = name_of(key.name).unwrap_or_else(|| panic!("{} has no row in SETTINGS", key.name));
        let all = shown(&settings.broker);
        let row = all.iter().find(|row| row.name == name).unwrap();
        assert_eq!(row.value, key.value(&settings), "{name}");
        assert_eq!(row.default, Some(key.value(&Settings::default())), "{name}");
        assert_eq!(row.help, key.help);
    }
    assert!(of_the_broker >= 13);
}

#[test]
fn names_are_unique_and_defaults_are_told_apart() {
    let all = shown(&BrokerConfig::default());
    let mut names: Vec<_> = all.iter().map(|row| row.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all.len());
    assert!(SETTINGS.iter().all(|(_, key, _)| keys::find(key).is_some()));
    assert!(all.iter().filter(|row| row.name != "advertised.listeners").all(|row| row.default.is_none()));
}
