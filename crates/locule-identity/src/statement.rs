use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand_core::RngCore;
use uuid::Uuid;

/// Session id that a grant carries; the wire has only this one.
pub const SSID: &str = "NA";

/// What stands in place of a token signature in a federation that does not prove identities.
pub const UNSIGNED: &str = "NA";

/// Longest base64 text that is still decoded as a signature, in bytes (a key of 8,192 bits).
const MAX_SIGNATURE_TEXT: usize = 1_368;

/// What a party signs to prove that it holds the key of its certificate: its common name and the other
/// side's nonce, without separator.
pub fn proof_text(common_name: &str, nonce: &str) -> Vec<u8> {
    [common_name.as_bytes(), nonce.as_bytes()].concat()
}

/// What the server signs for a token: the holder's name and the token, without separator. Its own token
/// is `token_text("server", "server")`.
pub fn token_text(name: &str, token: &str) -> Vec<u8> {
    [name.as_bytes(), token.as_bytes()].concat()
}

/// A signature as text: standard base64 with padding.
pub fn encode_signature(signature: &[u8]) -> String {
    STANDARD.encode(signature)
}

/// The bytes of a signature sent as text; `None` if it is not standard base64 with padding, or too long
/// for any key we accept.
pub fn decode_signature(text: &str) -> Option<Vec<u8>> {
    (text.len() <= MAX_SIGNATURE_TEXT).then(|| STANDARD.decode(text).ok()).flatten()
}

/// A random UUID (version 4) in canonical text.
pub fn random_uuid(rng: &mut dyn RngCore) -> String {
    let mut bytes = [0; 16];
    rng.fill_bytes(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid().hyphenated().to_string()
}

/// Whether `text` is a UUID in its one canonical form: 36 bytes, lower case, hyphens in place.
///
/// Nonces and tokens must be: text of a fixed length and alphabet behind a name cannot be read as part
/// of another name.
pub fn is_canonical_uuid(text: &str) -> bool {
    let mut canonical = Uuid::encode_buffer();
    text.len() == 36
        && Uuid::try_parse(text).is_ok_and(|uuid| uuid.hyphenated().encode_lower(&mut canonical) == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_form_of_a_uuid_counts() {
        assert!(is_canonical_uuid("1f9257b4-7111-42d0-84a4-5beac975f581"));
        for other in [
            "",
            "server",
            "1F9257B4-7111-42D0-84A4-5BEAC975F581",
            "1f9257b4711142d084a45beac975f581",
            "{1f9257b4-7111-42d0-84a4-5beac975f581}",
            "urn:uuid:1f9257b4-7111-42d0-84a4-5beac975f581",
            "1f9257b4-7111-42d0-84a4-5beac975f581 ",
            " 1f9257b4-7111-42d0-84a4-5beac975f58",
            "1f9257b4-7111-42d0-84a4-5beac975f58g",
        ] {
            assert!(!is_canonical_uuid(other), "{other:?}");
        }
    }

    #[test]
    fn signature_text_is_bounded_and_strict() {
        assert_eq!(decode_signature("AAEC"), Some(vec![0, 1, 2]));
        for bad in ["AAE", "AA-_", "AAEC\n", &"A".repeat(4_000)] {
            assert_eq!(decode_signature(bad), None);
        }
    }
}
