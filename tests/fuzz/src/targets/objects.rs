//! Payloads of the object format, and the requests and replies made of them.

use bytes::Bytes;
use locule_fobs::{Limits, decode, decode_with, encode};
use locule_message::{Headers, Message, Payload};
use locule_protocol as protocol;

use crate::edit::{PREFIX, edit_frames, edit_object, frames};
use crate::seeds::{self, header_len};
use crate::{Allowance, Target};

pub(crate) const FOBS: Target = Target {
    name: "fobs",
    about: "payloads of the object format, as known peers send them",
    seeds: seeds::payloads,
    edit: edit_object,
    run: |input| match decode(Bytes::copy_from_slice(input)) {
        Ok(value) => {
            let encoded = match encode(&value) {
                Ok(encoded) => encoded,
                Err(error) => return format!("decoded, {error:?}"),
            };
            let again = decode(encoded).expect("what is written is read");
            assert_eq!(format!("{again:?}"), format!("{value:?}"));
            value.kind().to_owned()
        }
        Err(error) => format!("{error:?}"),
    },
    // 2^18 values of any payload, twice, and as text
    allowance: Allowance { memory: (1 << 16, 400), work: (1000, 20) },
};

pub(crate) const STRANGER: Target = Target {
    name: "stranger",
    about: "payloads of peers that have not proved who they are: four times their size, or 4,096 values",
    seeds: seeds::payloads,
    edit: edit_object,
    run: |input| match decode_with(Bytes::copy_from_slice(input), &Limits::STRANGER) {
        Ok(value) => value.kind().to_owned(),
        Err(error) => format!("{error:?}"),
    },
    allowance: Allowance { memory: (512 << 10, 6), work: (5000, 1) },
};

pub(crate) const PROTOCOL: Target = Target {
    name: "protocol",
    about: "every request and reply of sites, servers and administrators",
    seeds: || seeds::single().filter(|frame| frame.get(6) == Some(&1)).cloned().collect(),
    edit: edit_frames,
    run: |input| {
        let frame = frames(input).into_iter().next().unwrap_or_default();
        let begin = PREFIX + usize::from(header_len(&frame));
        let headers = Bytes::copy_from_slice(frame.get(PREFIX..begin).unwrap_or_default());
        let body = Bytes::copy_from_slice(frame.get(begin..).unwrap_or_default());
        let Ok(headers) = Headers::decode(headers) else { return "no headers".into() };
        let message = Message { headers, body: body.into() };
        let payload = if message.headers.str("sm__pe").is_some() {
            Payload::fobs(message.body.whole())
        } else {
            message.payload()
        };
        all(&message.headers, &payload)
    },
    allowance: Allowance { memory: (1 << 16, 600), work: (4000, 100) },
};

macro_rules! all {
    ($($kind:ident),*) => {
        /// Reads a message as each of these, writes what could be read, and reads that again.
        fn all(headers: &Headers, payload: &Payload) -> String {
            let mut outcome = String::new();
            $(
                match protocol::$kind::from_parts(headers, payload) {
                    Ok(read) => {
                        outcome.push_str(stringify!($kind));
                        // writing adds what must be there; from then on nothing changes
                        if let Ok(parts) = read.to_parts() {
                            let read = protocol::$kind::from_parts(&parts.headers, &parts.payload)
                                .expect("what is written is read");
                            let parts = read.to_parts().expect("what was read is written");
                            let again = protocol::$kind::from_parts(&parts.headers, &parts.payload)
                                .expect("what is written is read");
                            assert_eq!(format!("{again:?}"), format!("{read:?}"));
                        }
                    }
                    Err(error) => {
                        let error = format!("{error:?}");
                        outcome.extend(error.chars().take(24));
                    }
                }
                outcome.push(' ');
            )*
            outcome
        }
    };
}

all!(
    ChallengeRequest,
    ChallengeReply,
    RegisterRequest,
    RegisterReply,
    Heartbeat,
    HeartbeatReply,
    Quit,
    QuitReply,
    GetTask,
    TaskReply,
    SubmitUpdate,
    SubmitReply,
    AuxRequest,
    AuxReply,
    AdminRequest,
    AdminReply,
    OutcomeReport
);
