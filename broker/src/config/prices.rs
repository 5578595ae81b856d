//! What the provider of the object storage charges, for estimates. The defaults are S3 Standard's in us-east-1.

/// In dollars.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prices {
    /// PUT, parts and copies of objects, LIST.
    pub thousand_puts: f64,
    /// GET and HEAD. Deletes are free.
    pub thousand_gets: f64,
    pub gib_month: f64,
}

impl Default for Prices {
    fn default() -> Self {
        Self { thousand_puts: 0.005, thousand_gets: 0.0004, gib_month: 0.023 }
    }
}
