//! A few switches on one clock; messages cross a link when the test says so.

use super::*;

pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn name(text: &str) -> Fqcn {
    text.parse().unwrap()
}

pub(crate) fn switch(called: &str) -> Switch {
    Switch::new(SwitchConfig::new(name(called)), Box::new(ChaCha20Rng::seed_from_u64(1)))
}

pub(crate) fn start() -> Now {
    Now { instant: Instant::now(), wall: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_299_691_581) }
}

pub(crate) fn later(now: Now, by: Duration) -> Now {
    Now { instant: now.instant + by, wall: now.wall + by }
}

pub(crate) fn facts(link: u64, peer: &str) -> LinkFacts {
    LinkFacts {
        link: LinkId(link),
        peer: name(peer),
        common_name: None,
        security: LinkSecurity::Clear,
        accepted: true,
        ours: true,
    }
}

pub(crate) const MAX_FRAME: usize = 1 << 30;

/// Switches by name; the link from one to another has the same number at both.
pub(crate) struct Net {
    pub(crate) now: Now,
    pub(crate) switches: BTreeMap<&'static str, Switch>,
    pub(crate) wires: Vec<(LinkId, &'static str, &'static str)>,
    /// What each cell was given to handle, and what came of its requests.
    pub(crate) delivered: Vec<(&'static str, Message, Option<ReplyTo>)>,
    pub(crate) settled: Vec<Settled>,
    pub(crate) dropped: Vec<(&'static str, DropReason)>,
}

impl Net {
    pub(crate) fn new(cells: &[&'static str], links: &[(&'static str, &'static str)]) -> Self {
        let mut net = Self {
            now: start(),
            switches: cells.iter().map(|called| (*called, switch(called))).collect(),
            wires: Vec::new(),
            delivered: Vec::new(),
            settled: Vec::new(),
            dropped: Vec::new(),
        };
        for (a, b) in links {
            net.link(a, b);
        }
        net
    }

    pub(crate) fn link(&mut self, a: &'static str, b: &'static str) -> LinkId {
        let link = LinkId(self.wires.len() as u64 + 1);
        let now = self.now;
        self.at(a).link_up(now, facts(link.0, b), MAX_FRAME).unwrap();
        self.at(b).link_up(now, facts(link.0, a), MAX_FRAME).unwrap();
        self.wires.push((link, a, b));
        link
    }

    pub(crate) fn at(&mut self, called: &'static str) -> &mut Switch {
        self.switches.get_mut(called).unwrap()
    }

    pub(crate) fn ask(&mut self, from: &'static str, to: &str, request: Request) {
        let now = self.now;
        self.at(from).request(now, &[name(to)], request);
        self.run();
    }

    /// Carries everything until nothing moves.
    pub(crate) fn run(&mut self) {
        loop {
            let mut moved = false;
            for (link, a, b) in self.wires.clone() {
                for (from, to) in [(a, b), (b, a)] {
                    while let Some(sent) = self.at(from).poll_transmit(link) {
                        let message = Message {
                            headers: Headers::decode(sent.headers).unwrap(),
                            body: sent.body.into(),
                        };
                        let now = self.now;
                        self.at(to).handle_message(now, link, message);
                        moved = true;
                    }
                }
            }
            self.collect();
            if !moved {
                return;
            }
        }
    }

    pub(crate) fn collect(&mut self) {
        for (called, switch) in &mut self.switches {
            while let Some(output) = switch.poll_output() {
                match output {
                    Output::Deliver(delivery) => {
                        self.delivered.push((called, delivery.message, delivery.reply_to));
                    }
                    Output::Settle(settled) => self.settled.push(settled),
                    Output::Dropped(_, why) => self.dropped.push((called, why)),
                    Output::Transmit(_)
                    | Output::Congested(_)
                    | Output::Relieved(_)
                    | Output::Proven(_)
                    | Output::Close(..)
                    | Output::Left(_)
                    | Output::Refused(..)
                    | Output::Undelivered(..) => {}
                }
            }
        }
    }

    /// Answers the last request delivered.
    pub(crate) fn answer(&mut self, reply: Reply) {
        let (called, _, to) = self.delivered.pop().unwrap();
        let now = self.now;
        self.at(called).reply(now, to.unwrap(), reply);
        self.run();
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now = later(self.now, time);
        let now = self.now;
        self.switches.values_mut().for_each(|switch| switch.handle_timeout(now));
        self.collect();
    }

    #[track_caller]
    pub(crate) fn outcome(&mut self) -> Result<Reply, RequestError> {
        assert_eq!(self.settled.len(), 1, "{:?}", self.settled);
        self.settled.pop().unwrap().outcome
    }
}

pub(crate) fn request() -> Request {
    Request::new("task", "echo", Payload::bytes(Bytes::from_static(b"\x01\x02\x03")))
}

pub(crate) fn message(kind: MessageKind, origin: &str, destination: &str) -> Message {
    let mut headers = Headers::new();
    headers.set(key::MSG_TYPE, kind.as_str());
    headers.set(key::ORIGIN, origin);
    headers.set(key::DESTINATION, destination);
    Message::new(headers, Payload::none())
}

// --- the wire's own messages
