//! When what was produced is written to object storage, and what requests cost there.

use super::{GIB, Key, Kind, plain};

/// A price in dollars.
macro_rules! dollars {
    ($field:ident) => {
        Kind::Text {
            get: |settings| settings.prices.$field.to_string(),
            set: |settings, text| match text.parse::<f64>() {
                Ok(price) if price.is_finite() && price >= 0.0 => {
                    settings.prices.$field = price;
                    Ok(())
                }
                _ => Err("must be a price in dollars, such as 0.005".to_owned()),
            },
        }
    };
}

pub const KEYS: &[Key] = &[
    plain(
        "flush_interval_ms",
        "Writes to object storage begin at least so far apart, unless flush_bytes are waiting.",
        millis!(1, 60_000, broker.flush_interval),
    ),
    plain(
        "flush_bytes",
        "So many bytes are written to object storage without waiting for the interval.",
        integer!(64 << 10, GIB, broker.flush_bytes: usize),
    ),
    plain(
        "put_budget_per_s",
        "Writes to object storage begin at most so often per second, averaged over ten seconds: above that the \
         interval is widened, to no more than one write's share, until they fit. What reaches flush_bytes is \
         written all the same, and memory that is used up ends the widening. 0 for no such budget.",
        integer!(0, 10_000, broker.put_budget_per_s: u32),
    ),
    plain(
        "price_thousand_puts_usd",
        "For estimates of the bill, here S3 Standard's: 1,000 writes of objects or of their parts, copies, lists.",
        dollars!(thousand_puts),
    ),
    plain("price_thousand_gets_usd", "1,000 reads of objects or of what is known about them.", dollars!(thousand_gets)),
    plain("price_gib_month_usd", "A GiB stored for a month.", dollars!(gib_month)),
];
