//! Short texts: names of cells and participants, tokens, signatures, sessions.

use locule_identity::{
    MAX_NAME_LEN, Session, Token, check_name, check_name_against_server, decode_signature, encode_signature,
    is_canonical_uuid,
};
use locule_message::{Fqcn, ReturnCode};
use locule_transport::Endpoint;

use crate::{Allowance, Mutator, Target};

pub(crate) const NAMES: Target = Target {
    name: "names",
    about: "names, tokens, signatures, addresses",
    seeds: || {
        let texts = [
            "site-1.job",
            "relay-a.site-1.1f9257b4-7111-42d0-84a4-5beac975f581",
            "_admin_1f9257b4-7111-42d0-84a4-5beac975f581",
            "1f9257b4-7111-42d0-84a4-5beac975f581\0NA\0NA",
            "AAECAwQFBgcICQ==",
            "server",
            "grpc://server.example:8002/path?secure=true&ports=1#f",
            "invalid_request",
        ];
        texts.map(|text| text.as_bytes().to_vec()).to_vec()
    },
    edit: |_: &mut Mutator, _| None,
    run: |input| {
        let text = String::from_utf8_lossy(input);
        let mut outcome = String::new();
        match Fqcn::parse(&text) {
            Ok(name) => {
                assert_eq!(Fqcn::parse(name.as_str()).as_ref(), Ok(&name));
                assert_eq!(name.segments().count(), name.generation());
                outcome += "fqcn ";
            }
            Err(error) => outcome += &format!("{error:?} "),
        }
        match check_name(&text) {
            Ok(()) => assert!(text.len() <= MAX_NAME_LEN && !text.contains(char::is_control)),
            Err(error) => outcome += &format!("{error:?} "),
        }
        outcome += if check_name_against_server(&text, "server").is_ok() { "name " } else { "" };
        if let Some(signature) = decode_signature(&text) {
            assert_eq!(encode_signature(&signature), text);
            outcome += "signature ";
        }
        let mut fields = text.split('\0');
        let mut field = || fields.next().unwrap_or_default().to_owned();
        let token = Token { token: field().into(), signature: field().into(), ssid: field() };
        let secret = token.token.expose();
        assert!(secret.len() < 8 || !format!("{token:?}").contains(secret) || token.ssid.contains(secret));
        if let Ok(session) = Session::unproven("site-1", token) {
            assert!(is_canonical_uuid(session.token().expose()));
            outcome += "session ";
        }
        if let Ok(code) = ReturnCode::parse(&text) {
            assert_eq!(code.as_str(), text);
            outcome += "code ";
        }
        match Endpoint::parse(&text) {
            Ok(endpoint) => {
                let again = Endpoint::parse(&endpoint.to_string()).expect("what is written is read");
                assert_eq!(again, endpoint);
                outcome += "endpoint";
            }
            Err(error) => outcome += &format!("{error:?}"),
        }
        outcome
    },
    allowance: Allowance { memory: (16 << 10, 60), work: (400, 16) },
};
