//! Makes texts from elsewhere fit for a log.

use locule_cell::RequestError;

/// Longest text kept, in characters.
const LONGEST: usize = 300;
/// Longest text looked at, in bytes: what is beyond is cut anyway.
const LOOKED_AT: usize = 64 << 10;
/// What stands for a secret.
const REMOVED: &str = "…";
/// How unlike words a run of characters may be; see [`unlike_words`].
const WORDLIKE: i32 = 20;

/// `text` without what looks like a secret, escaped and cut.
///
/// PEM blocks, UUIDs (the form of tokens and nonces), long hexadecimal numbers and long runs of base64
/// become `…`. Words of any length stay, file names and paths included.
pub(crate) fn redact(text: &str) -> String {
    let text = if text.len() > LOOKED_AT {
        // half a secret would not be known for one
        text[..text.floor_char_boundary(LOOKED_AT)].trim_end_matches(is_base64)
    } else {
        text
    };
    let text = without_pem(text);
    let mut clean = String::new();
    for piece in text.split_inclusive(|c: char| !is_base64(c)) {
        let run = piece.trim_end_matches(|c: char| !is_base64(c));
        clean.push_str(&without_secrets(run));
        piece[run.len()..].chars().for_each(|c| push_escaped(&mut clean, c));
    }
    match clean.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", &clean[..at]),
        None => clean,
    }
}

/// The text of `error`, what a peer said in it redacted before it is cut: see [`redact`].
pub(crate) fn redacted(error: &RequestError) -> String {
    if let RequestError::Refused { code, .. } = error {
        format!("refused ({code}): {}", reason_of(error))
    } else if let RequestError::Returned { by, code, .. } = error {
        format!("returned by {by} ({code}): {}", reason_of(error))
    } else {
        error.to_string()
    }
}

/// What a peer gave as the reason of `error`, redacted; if there is no peer in it, its text.
pub(crate) fn reason_of(error: &RequestError) -> String {
    if let RequestError::Refused { reason, .. } | RequestError::Returned { reason, .. } = error {
        redact(reason)
    } else {
        error.to_string()
    }
}

/// Quotes stay as they are: the log is for people.
fn push_escaped(clean: &mut String, c: char) {
    match c {
        '\'' | '"' => clean.push(c),
        c => clean.extend(c.escape_debug()),
    }
}

/// A block without its end is removed to the end of the text.
fn without_pem(text: &str) -> String {
    const BEGIN: &str = "-----BEGIN";
    const END: &str = "-----END";
    let (mut clean, mut rest) = (String::new(), text);
    while let Some(begin) = rest.find(BEGIN) {
        clean.push_str(&rest[..begin]);
        clean.push_str(REMOVED);
        let block = &rest[begin + BEGIN.len()..];
        rest = match block.find(END) {
            Some(end) => after_dashes(&block[end + END.len()..]),
            None => "",
        };
    }
    clean.push_str(rest);
    clean
}

/// What follows the label of a PEM line, ` CERTIFICATE-----`.
fn after_dashes(label: &str) -> &str {
    let line = label.find(['\n', '\\']).unwrap_or(label.len());
    label[..line].find("-----").map_or(&label[line..], |at| &label[at + 5..])
}

/// `run` consists of characters of base64 only, with padding.
fn without_secrets(run: &str) -> String {
    const UUID: usize = 36;
    let mut clean = String::new();
    let mut rest = run;
    while let Some(at) = (0..rest.len()).find(|at| rest.get(*at..at + UUID).is_some_and(is_uuid)) {
        clean.push_str(&rest[..at]);
        clean.push_str(REMOVED);
        rest = &rest[at + UUID..];
    }
    clean.push_str(rest);
    let secret =
        |part: &str| unlike_words(part) > WORDLIKE || part.split(['-', '/', '=', '_']).any(is_long_hex);
    let redacted = clean.split(REMOVED).map(|part| if secret(part) { REMOVED } else { part });
    redacted.collect::<Vec<_>>().join(REMOVED)
}

fn is_base64(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=' | '-' | '_')
}

fn is_uuid(text: &str) -> bool {
    let groups = text.split('-').map(str::len);
    groups.eq([8, 4, 4, 4, 12]) && text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
}

/// A key, nonce or digest; a number is no such thing, and no word has digits.
fn is_long_hex(word: &str) -> bool {
    let has = |kind: fn(&u8) -> bool| word.as_bytes().iter().any(kind);
    word.len() >= 32
        && word.bytes().all(|b| b.is_ascii_hexdigit())
        && has(u8::is_ascii_digit)
        && has(u8::is_ascii_alphabetic)
}

/// How little the densest stretch of `run` looks like words, names and numbers. Random base64 scores some
/// 0.8 for every character; words, in whatever case and however joined, lose more than they gain.
///
/// Each step from one character to the next scores by how much more likely it is in random text.
fn unlike_words(run: &str) -> i32 {
    let (mut here, mut most) = (0, 0);
    for step in run.as_bytes().windows(2) {
        let score = match (Class::of(step[0]), Class::of(step[1])) {
            (Class::Lower, Class::Upper) => 3,
            (Class::Lower | Class::Upper, Class::Digit) | (Class::Digit, Class::Upper) => 3,
            (Class::Digit, Class::Lower) => 2,
            (Class::Upper, Class::Upper) | (Class::Other, _) => 0,
            (Class::Upper | Class::Lower, Class::Lower) | (_, Class::Other) => -1,
            (Class::Digit, Class::Digit) => -2,
        };
        here = (here + score).max(0);
        most = most.max(here);
    }
    most
}

#[derive(Clone, Copy)]
enum Class {
    Lower,
    Upper,
    Digit,
    Other,
}

impl Class {
    fn of(byte: u8) -> Self {
        match byte {
            b'a'..=b'z' => Self::Lower,
            b'A'..=b'Z' => Self::Upper,
            b'0'..=b'9' => Self::Digit,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    use locule_cell::RequestError;
    use locule_message::ReturnCode;
    use proptest::prelude::*;

    use super::{LONGEST, redact, redacted};

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(redact(text), expected);
    }

    #[test]
    fn tokens_are_removed_wherever_they_stand() {
        check("bad token 940d0ce0-f5ed-4170-8f4e-5613763b9df7!", "bad token …!");
        check("token=940d0ce0-f5ed-4170-8f4e-5613763b9df7,x", "token=…,x");
        check("site-1940d0ce0-f5ed-4170-8f4e-5613763b9df7", "site-1…");
        check("/jobs/940d0ce0-f5ed-4170-8f4e-5613763b9df7/app", "/jobs/…/app");
        check("nonce 940d0ce0f5ed41708f4e5613763b9df7", "nonce …");
    }

    #[test]
    fn signatures_are_removed() {
        check("bad TMuEsi8d+rhHNjkXujfAh7Eb0YgRrBSRdQ4uZrm6SfdesHjF here", "bad … here");
    }

    #[test]
    fn pem_blocks_are_removed_whole_escaped_or_cut() {
        let block = "-----BEGIN PRIVATE KEY-----\nMIIEvgIBADANBgkqhkiG\n-----END PRIVATE KEY-----";
        check(&format!("key {block} is bad, {block}"), "key … is bad, …");
        check(&format!("key {} is bad", block.escape_debug()), "key … is bad");
        check(&block[..40], "…");
    }

    #[test]
    fn ordinary_reasons_stay_readable() {
        for reason in [
            "Client 'site-1' is disabled",
            "Request from client: missing client token",
            "x86_64-unknown-linux-gnu: CPython3.12 at 2026-11-21T12:30:45+01:00",
            "no such file: /srv/locule/Site2/run_20261121/app_site-1/config/config_fed_client_v2_20261121.json",
            "logistic_regression_with_standardised_features_round_10_of_20_site_3_v2.npz",
            "Donaudampfschifffahrtselektrizitaetenhauptbetriebswerkbauunterbeamtengesellschaft",
            "FederatedLogisticRegressionExecutorConfiguration.SERVER_NOT_READY_YET_TRY_LATER",
        ] {
            check(reason, reason);
        }
    }

    #[test]
    fn control_characters_are_escaped_and_length_is_bounded() {
        check("a\nb\u{1b}[31m\u{202e}", "a\\nb\\u{1b}[31m\\u{202e}");
        assert!(redact(&"x y".repeat(1000)).chars().count() <= 301);
        assert!(redact(&"é".repeat(100_000)).chars().count() <= 301);
    }

    #[test]
    fn a_reason_is_redacted_before_it_is_cut() {
        for length in 0..400 {
            let reason = format!("{}940d0ce0-f5ed-4170-8f4e-5613763b9df7", " ".repeat(length));
            let error = RequestError::Refused { code: ReturnCode::CommError, reason };
            let text = redacted(&error);
            assert!(text.starts_with("refused (comm_error): ") && !text.contains("940d"), "{text}");
        }
    }

    /// Words as they stand in file names, in one case or capitalised, with short numbers.
    fn name() -> impl Strategy<Value = String> {
        let word = prop_oneof![
            6 => "[a-z]{4,14}",
            2 => "[A-Z][a-z]{5,13}",
            1 => "([A-Z][a-z]{4,10}){2,6}",
            1 => "[A-Z]{2,10}",
            1 => "[0-9]{1,4}",
        ];
        let joint = prop_oneof![Just("_"), Just("-"), Just("/"), Just(".")];
        proptest::collection::vec((word, joint), 1..40).prop_map(|words| {
            let name = words.into_iter().flat_map(|(word, joint)| [word, joint.to_owned()]);
            name.collect::<String>().chars().take(LONGEST).collect()
        })
    }

    proptest! {
        #[test]
        fn no_piece_of_a_key_or_signature_survives(
            secret in proptest::collection::vec(any::<u8>(), 160..300),
            before in "[a-z ]{0,40}[ =:/]",
            after in "[ ,.!][a-z ]{0,20}",
            url_safe: bool,
        ) {
            let secret = if url_safe { URL_SAFE_NO_PAD.encode(secret) } else { STANDARD.encode(secret) };
            let clean = redact(&format!("{before}{secret}{after}"));
            for piece in secret.as_bytes().windows(8) {
                let piece = std::str::from_utf8(piece).unwrap();
                prop_assert!(!clean.contains(piece), "{clean}");
            }
        }

        #[test]
        fn no_token_survives(token in "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", before: String, after: String) {
            let clean = redact(&format!("{before}{token}{after}"));
            prop_assert!(!clean.contains(&token));
        }

        #[test]
        fn names_of_any_length_stay(name in name()) {
            prop_assert_eq!(redact(&name), name);
        }

        #[test]
        fn whatever_comes_in_what_comes_out_is_short_and_printable(text: String) {
            let clean = redact(&text);
            prop_assert!(clean.chars().count() <= 301 && !clean.chars().any(char::is_control));
        }
    }
}
