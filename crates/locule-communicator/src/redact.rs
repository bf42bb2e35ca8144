//! Makes texts from elsewhere fit for a log.

/// Longest text kept, in characters.
const LONGEST: usize = 300;

/// `text` without what looks like a secret, escaped and cut.
///
/// Tokens (UUIDs), signatures and keys (long runs of base64 or hex) become `…`.
pub(crate) fn redact(text: &str) -> String {
    let mut clean = String::new();
    for word in text.split_inclusive(|c: char| !is_secret_char(c)) {
        let end = word.trim_end_matches(|c: char| !is_secret_char(c)).len();
        if looks_secret(&word[..end]) {
            clean.push('…');
        } else {
            clean.extend(word[..end].escape_debug());
        }
        clean.extend(word[end..].chars().flat_map(char::escape_debug));
    }
    match clean.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", &clean[..at]),
        None => clean,
    }
}

fn is_secret_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '/' | '=' | '_')
}

fn looks_secret(word: &str) -> bool {
    let digits = word.chars().filter(char::is_ascii_digit).count();
    word.len() >= 32 && digits >= 2
}

#[cfg(test)]
mod tests {
    use super::redact;

    #[test]
    fn tokens_and_signatures_are_redacted() {
        assert_eq!(redact("bad token 940d0ce0-f5ed-4170-8f4e-5613763b9df7!"), "bad token …!");
        assert_eq!(redact("sig=TMuEsi8d+rhHNjkXujfAh7Eb0YgRrBSRdQ4uZrm6SfdesHjF"), "…");
    }

    #[test]
    fn ordinary_reasons_stay_readable() {
        assert_eq!(redact("Client 'site-1' is disabled"), "Client \\'site-1\\' is disabled");
    }

    #[test]
    fn control_characters_are_escaped_and_length_is_bounded() {
        assert_eq!(redact("a\nb"), "a\\nb");
        assert!(redact(&"x y".repeat(1000)).chars().count() <= 301);
    }
}
