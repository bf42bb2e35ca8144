//! Numbers that arguments must be, checked while they are read, so that a mistake is shown at its place.

use serde::Deserialize;

/// A finite number above zero.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Deserialize, schemars::JsonSchema)]
#[serde(try_from = "f64")]
pub struct Positive(f64);

impl Positive {
    /// The number.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Positive {
    type Error = &'static str;

    fn try_from(number: f64) -> Result<Self, Self::Error> {
        if number.is_finite() && number > 0.0 {
            Ok(Self(number))
        } else {
            Err("a number above 0 is expected")
        }
    }
}

/// A number from 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Deserialize, schemars::JsonSchema)]
#[serde(try_from = "f64")]
pub struct Percent(f64);

impl Percent {
    /// The number.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Percent {
    type Error = &'static str;

    fn try_from(number: f64) -> Result<Self, Self::Error> {
        if (0.0..=100.0).contains(&number) {
            Ok(Self(number))
        } else {
            Err("a number from 0 to 100 is expected")
        }
    }
}
