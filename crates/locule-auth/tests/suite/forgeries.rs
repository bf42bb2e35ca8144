//! Forged tokens: a message that carries a good one, changed in one of many ways, never passes.

use locule_identity::{Session, Signer, encode_signature, random_uuid, token_text};
use locule_message::{HeaderValue, Message, key};
use locule_switch::{LinkFacts, LinkSecurity};
use rand_core::RngCore;

use crate::scene::{Scene, link, request, stamped};
use crate::toy::Toy;

/// Everything that a forger may know: the sessions of all sites, even the victim's.
struct World {
    scene: Scene,
    server: Toy,
    victim: Session,
    other: Session,
    quit: Session,
    removed: Session,
    replaced: Session,
    never_issued: Session,
    administrator: Session,
}

const ADMIN: &str = "_admin_4171c61e-1c4f-4ce8-b3b4-70aa2a5a4533";

impl World {
    fn new() -> Self {
        let mut scene = Scene::new();
        let replaced = scene.site("site-1");
        let victim = scene.site("site-1");
        let other = scene.site("site-2");
        let quit = scene.site("site-3");
        scene.ledger.quit("site-3").unwrap();
        let removed = scene.site("site-4");
        scene.ledger.remove("site-4").unwrap();
        let (_, never_issued) = scene.prove(&Toy::new("site-1"), "site-1");
        let administrator = scene.register(&Toy::admin("bob"), ADMIN);
        let server = Toy::new("hub.example");
        Self { scene, server, victim, other, quit, removed, replaced, never_issued, administrator }
    }

    fn signed(&self, name: &str, token: &str) -> String {
        encode_signature(&self.server.sign(&token_text(name, token)).unwrap())
    }
}

/// A message over a link, to be forged.
struct Attempt {
    message: Message,
    link: LinkFacts,
}

impl Attempt {
    fn of(session: &Session, origin: &str) -> Self {
        Self {
            message: stamped(session, request(origin, "task", "quit")),
            link: link(origin, session.site_name()),
        }
    }

    fn set<'a>(mut self, key: &str, value: impl Into<HeaderValue<'a>>) -> Self {
        self.message.headers.set(key, value);
        self
    }

    fn without(mut self, key: &str) -> Self {
        self.message.headers.remove(key);
        self
    }

    fn over(mut self, peer: &str, common_name: &str) -> Self {
        self.link = link(peer, common_name);
        self
    }

    fn token(&self) -> String {
        self.message.headers.str(key::TOKEN).unwrap().to_owned()
    }

    fn signature(&self) -> String {
        self.message.headers.str(key::TOKEN_SIGNATURE).unwrap().to_owned()
    }
}

type Forge = fn(&mut World, Attempt) -> Attempt;

const KINDS: &[(&str, Forge)] = &[
    ("no token", |_, a| a.without(key::TOKEN)),
    ("no signature", |_, a| a.without(key::TOKEN_SIGNATURE)),
    ("no name", |_, a| a.without(key::CLIENT_NAME)),
    ("no origin", |_, a| a.without(key::ORIGIN)),
    ("nothing at all", |_, a| a.without(key::TOKEN).without(key::TOKEN_SIGNATURE).without(key::CLIENT_NAME)),
    ("empty token", |_, a| a.set(key::TOKEN, "")),
    ("missing values as the peer writes them", |_, a| {
        a.set(key::TOKEN, "NA").set(key::TOKEN_SIGNATURE, "NA")
    }),
    ("token of another type", |_, a| {
        let token = a.token();
        a.set(key::TOKEN, token.as_bytes())
    }),
    ("one digit changed", |w, a| {
        let mut token = a.token().into_bytes();
        let at = w.scene.rng.next_u32() as usize % token.len();
        token[at] = if token[at] == b'0' { b'1' } else { b'0' };
        a.set(key::TOKEN, String::from_utf8(token).unwrap())
    }),
    ("one bit of the signature changed", |w, a| {
        let mut signature = locule_identity::decode_signature(&a.signature()).unwrap();
        let at = w.scene.rng.next_u32() as usize % signature.len();
        signature[at] ^= 1 << (w.scene.rng.next_u32() % 8);
        a.set(key::TOKEN_SIGNATURE, encode_signature(&signature))
    }),
    ("signature without its padding", |_, a| {
        let signature = a.signature();
        a.set(key::TOKEN_SIGNATURE, signature.trim_end_matches('='))
    }),
    ("token in upper case", |_, a| {
        let token = a.token().to_ascii_uppercase();
        // Digits alone have no case: that would be the token itself.
        let token = if token == a.token() { format!("{token} ") } else { token };
        a.set(key::TOKEN, token)
    }),
    ("token with a blank", |_, a| {
        let token = format!(" {}", a.token());
        a.set(key::TOKEN, token)
    }),
    ("random token, random signature", |w, a| {
        let mut signature = [0; 256];
        w.scene.rng.fill_bytes(&mut signature);
        let token = random_uuid(&mut w.scene.rng);
        a.set(key::TOKEN, token).set(key::TOKEN_SIGNATURE, encode_signature(&signature))
    }),
    ("random token, signed by the server", |w, a| {
        let token = random_uuid(&mut w.scene.rng);
        let signature = w.signed("site-1", &token);
        a.set(key::TOKEN, token).set(key::TOKEN_SIGNATURE, signature)
    }),
    ("random token, signed by the site itself", |w, a| {
        let token = random_uuid(&mut w.scene.rng);
        let signature = encode_signature(&Toy::new("site-1").sign(&token_text("site-1", &token)).unwrap());
        a.set(key::TOKEN, token).set(key::TOKEN_SIGNATURE, signature)
    }),
    ("a challenge's proof as a token", |w, a| {
        let nonce = random_uuid(&mut w.scene.rng);
        let signature = w.signed("hub.example", &nonce);
        a.set(key::CLIENT_NAME, "hub.example").set(key::TOKEN, nonce).set(key::TOKEN_SIGNATURE, signature)
    }),
    ("name and token cut elsewhere", |_, a| {
        let token = a.token();
        a.set(key::CLIENT_NAME, format!("site-1{}", &token[..8])).set(key::TOKEN, &token[8..])
    }),
    ("name given to the token", |_, a| {
        let token = format!("1{}", a.token());
        a.set(key::CLIENT_NAME, "site-").set(key::TOKEN, token)
    }),
    ("the server's own token", |w, a| {
        let signature = w.signed("server", "server");
        a.set(key::CLIENT_NAME, "server").set(key::TOKEN, "server").set(key::TOKEN_SIGNATURE, signature)
    }),
    ("a server job's token", |w, a| {
        let signature = w.signed("server_job", "job");
        a.set(key::CLIENT_NAME, "server_job").set(key::TOKEN, "job").set(key::TOKEN_SIGNATURE, signature)
    }),
    ("another's token under our name", |w, a| {
        let token = w.other.token().expose().to_owned();
        let signature = w.other.token_signature().expose().to_owned();
        a.set(key::TOKEN, token).set(key::TOKEN_SIGNATURE, signature)
    }),
    ("another's name with our token", |_, a| a.set(key::CLIENT_NAME, "site-2")),
    ("another's whole stamp", |w, _| Attempt::of(&w.other, "site-1").over("site-1", "site-1")),
    ("stolen, from the thief's own cell", |w, _| Attempt::of(&w.victim, "site-2").over("site-2", "site-2")),
    ("stolen, from below the thief", |w, _| Attempt::of(&w.victim, "site-2.site-1").over("site-2", "site-2")),
    ("stolen, under the victim's origin over the thief's link", |w, _| {
        Attempt::of(&w.victim, "site-1").over("site-2", "site-2")
    }),
    ("stolen, over a link that bears the victim's name", |_, a| a.over("site-1", "site-2")),
    ("stolen, from a cell whose name begins the same", |w, _| {
        Attempt::of(&w.victim, "site-11").over("site-11", "site-11")
    }),
    ("stolen, from a cell of the server", |w, _| {
        Attempt::of(&w.victim, "server.site-1").over("server.site-1", "site-1")
    }),
    ("stolen, over a clear link of another name", |w, _| {
        let mut attempt = Attempt::of(&w.victim, "site-1").over("site-2", "site-2");
        attempt.link.security = LinkSecurity::Clear;
        attempt.link.common_name = None;
        attempt
    }),
    ("stolen by an administrator", |w, _| Attempt::of(&w.victim, ADMIN).over(ADMIN, "bob")),
    ("an administrator's, from a site", |w, _| {
        Attempt::of(&w.administrator, "site-1").over("site-1", "site-1")
    }),
    ("an administrator's, over another's link", |_, a| a.over(ADMIN, "eve")),
    ("given back", |w, _| Attempt::of(&w.quit, "site-3")),
    ("removed", |w, _| Attempt::of(&w.removed, "site-4")),
    ("replaced", |w, _| Attempt::of(&w.replaced, "site-1")),
    ("granted but never issued", |w, _| Attempt::of(&w.never_issued, "site-1")),
    ("as a heartbeat from a job's cell", |w, _| {
        Attempt::of(&w.victim, "site-1.job").set(key::TOPIC, "heart_beat")
    }),
];

fn try_all(rounds: usize) {
    assert!(KINDS.len() >= 24);
    let mut world = World::new();
    for round in 0..rounds {
        for (kind, forge) in KINDS {
            let honest = Attempt::of(&world.victim, "site-1");
            assert!(world.scene.check(&honest.link, &honest.message).is_ok(), "honest, round {round}");
            let forged = forge(&mut world, honest);
            let passed = world.scene.check(&forged.link, &forged.message).is_ok();
            assert!(!passed, "{kind}, round {round}: {:?}", forged.message);
        }
    }
}

#[test]
fn no_forged_token_passes() {
    try_all(100);
}

#[test]
#[ignore = "takes minutes: a million forgeries"]
fn none_of_a_million_forged_tokens_passes() {
    try_all(1_000_000 / KINDS.len() + 1);
}
