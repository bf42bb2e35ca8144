//! Times as people and stock programs read them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Seconds since the Unix epoch.
pub(crate) fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |elapsed| elapsed.as_secs_f64())
}

/// `2026-01-31T10:00:00+00:00`; empty for what is no time of this era.
pub(crate) fn iso(seconds: u64) -> String {
    let time =
        i64::try_from(seconds).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    let text = time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default();
    // Older Pythons do not read a `Z`.
    text.strip_suffix('Z').map_or(text.clone(), |text| format!("{text}+00:00"))
}

/// The present, for people.
pub(crate) fn stamp() -> String {
    iso(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs()))
}

/// `0:01:30`, or `2 days, 0:01:30`.
pub(crate) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours, minutes, seconds) =
        (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    let clock = format!("{hours}:{minutes:02}:{seconds:02}");
    match days {
        0 => clock,
        1 => format!("1 day, {clock}"),
        _ => format!("{days} days, {clock}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_that_python_reads_and_writes() {
        assert_eq!(iso(0), "1970-01-01T00:00:00+00:00");
        assert_eq!(iso(1_780_000_000), "2026-05-28T20:26:40+00:00");
        assert_eq!(iso(u64::MAX), "");
        assert_eq!(span(Duration::from_secs(90)), "0:01:30");
        assert_eq!(span(Duration::from_secs(86_400 + 3_661)), "1 day, 1:01:01");
        assert_eq!(span(Duration::from_secs(3 * 86_400)), "3 days, 0:00:00");
    }
}
