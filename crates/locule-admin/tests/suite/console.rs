//! A small console: what the FLARE API does, with our own cell.

use std::fs;
use std::path::Path;

use locule_admin::{CHANNEL, COMMAND_TOPIC, CommandDocument, ReplyDocument, line};
use locule_cell::{Cell, Reply, Request, RequestError};
use locule_fobs::{Map, Value, decode, encode};
use locule_identity::proof_text;
use locule_job::pack_job;
use locule_message::{Fqcn, Payload};
use locule_protocol::{AuxReply, AuxRequest, ClientType, server_context, to_props};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::scene::{Scene, register, signer};

pub(crate) struct Console {
    pub(crate) cell: Cell,
    pub(crate) token: Option<String>,
    /// Words that the session is over.
    pub(crate) expired: mpsc::UnboundedReceiver<()>,
}

impl Console {
    /// A console that has registered and logged in.
    pub(crate) async fn log_in(scene: &Scene, user: &str) -> Self {
        let mut console = Self::register(scene, user).await;
        let reply = console.prove(user, user).await;
        assert_eq!(reply.items[0], locule_admin::Item::Text("OK".into()));
        let Some(locule_admin::Item::Token(token)) = reply.items.get(1) else {
            panic!("no token: {reply:?}")
        };
        console.token = Some(token.clone());
        console
    }

    /// A console that has registered and not logged in.
    pub(crate) async fn register(scene: &Scene, user: &str) -> Self {
        let cell = scene.linked(&format!("_admin_{}", Uuid::from_u128(rand::random())), user).await;
        register(&cell, user, ClientType::Admin).await;
        let (tell, expired) = mpsc::unbounded_channel();
        cell.handle(CHANNEL, "SESSION_EXPIRED", move |_| {
            tell.send(()).ok();
            async { Ok(Reply::ok(Payload::none())) }
        });
        Self { cell, token: None, expired }
    }

    /// Logs in as `user` with the proof of `prover`.
    pub(crate) async fn prove(&self, user: &str, prover: &str) -> ReplyDocument {
        let own = signer(prover);
        let signature = own.sign(&proof_text(&own.identity().common_name, "")).unwrap();
        let command = CommandDocument::new(format!("_cert_login {user}"));
        let request = Request::new(CHANNEL, COMMAND_TOPIC, text(&command.to_text("now")))
            .header("user_name", user)
            .header("cert", own.certificate_pem())
            .header("signature", &signature[..])
            .header("study", "default");
        document(&self.cell.request(&Fqcn::server(), request).await.unwrap().into_ok().unwrap())
    }

    fn command(&self, command: &str) -> String {
        CommandDocument { token: self.token.clone(), ..CommandDocument::new(command) }.to_text("now")
    }

    pub(crate) async fn try_ask(&self, command: &str) -> Result<ReplyDocument, RequestError> {
        let request = Request::new(CHANNEL, COMMAND_TOPIC, text(&self.command(command)));
        Ok(document(&self.cell.request(&Fqcn::server(), request).await?.into_ok()?))
    }

    pub(crate) async fn ask(&self, command: &str) -> ReplyDocument {
        self.try_ask(command).await.unwrap()
    }

    /// Asks and expects this status; its info.
    pub(crate) async fn refused(&self, command: &str, status: &str) -> String {
        let reply = self.ask(command).await;
        assert_eq!(reply.status_word(), Some(status), "{command}: {reply:?}");
        reply.meta["info"].as_str().unwrap().to_owned()
    }

    /// Sends a job folder to be run; the server's last word.
    pub(crate) async fn submit(&self, folder: &Path) -> ReplyDocument {
        self.push("job_mgmt.submit_job", folder).await
    }

    /// Sends a job folder with a command; the server's last word.
    pub(crate) async fn push(&self, command: &str, folder: &Path) -> ReplyDocument {
        self.push_with(command, folder, &[]).await
    }

    /// The same, with more words behind the folder's name.
    pub(crate) async fn push_with(&self, command: &str, folder: &Path, more: &[&str]) -> ReplyDocument {
        let zip = pack_job(folder).unwrap();
        let name = folder.file_name().unwrap().to_str().unwrap();
        let command = self.command(&line([command, name].iter().chain(more).copied()));
        let id = Uuid::from_u128(rand::random()).to_string();
        let chunks: Vec<&[u8]> = zip.chunks(1_000).collect();
        let mut last = None;
        for (seq, chunk) in chunks.iter().enumerate() {
            let ctx = (seq == 0).then_some((command.as_str(), zip.len()));
            let reply = self.send(&id, seq, chunk, seq + 1 == chunks.len(), ctx).await;
            assert_eq!(reply.code, "OK", "chunk {seq}");
            last = Some(reply);
        }
        let last = last.unwrap();
        ReplyDocument::parse(last.headers.str("ObjectStreamer.END_RESULT").expect("an end result")).unwrap()
    }

    /// Sends one chunk.
    pub(crate) async fn send(
        &self,
        id: &str,
        seq: usize,
        data: &[u8],
        last: bool,
        ctx: Option<(&str, usize)>,
    ) -> AuxReply {
        let request = chunk_of(id, seq, data, last, ctx);
        let reply = self.cell.request(&Fqcn::server(), request).await.unwrap().into_ok().unwrap();
        AuxReply::from_parts(&reply.headers, &reply.payload).unwrap()
    }

    /// Sends a first chunk that may be refused altogether.
    pub(crate) async fn try_send(&self, command: &str) -> Result<Reply, RequestError> {
        let request = chunk_of("t", 0, b"ab", true, Some((command, 2)));
        self.cell.request(&Fqcn::server(), request).await?.into_ok()
    }

    /// Fetches what a download offers, into a folder.
    pub(crate) async fn fetch(&self, offer: &ReplyDocument, into: &Path) {
        for file in offer.meta["files"].as_array().unwrap() {
            let (name, reference) = (file[0].as_str().unwrap(), file[1].as_str().unwrap());
            let (mut content, mut state) = (Vec::new(), None);
            let nonce = loop {
                let reply = self.chunk(reference, state).await.unwrap();
                if reply.str("status") == Some("eof") {
                    break reply.str("confirm_nonce").unwrap().to_owned();
                }
                assert_eq!(reply.str("status"), Some("ok"));
                content.extend_from_slice(reply.bytes("data").unwrap());
                state = reply.map("state").cloned();
            };
            fs::write(into.join(name), content).unwrap();
            let confirm =
                Map::from_iter([("ref_id", reference), ("confirm", "success"), ("confirm_nonce", &nonce)]);
            self.request(confirm).await.unwrap();
        }
    }

    pub(crate) async fn chunk(&self, reference: &str, state: Option<Map>) -> Result<Map, RequestError> {
        let mut request =
            Map::from_iter([("ref_id", Value::from(reference)), ("confirm_capable", true.into())]);
        if let Some(state) = state {
            request.insert("state", state);
        }
        let reply = self.request(request).await?;
        Ok(decode(reply.payload.body.whole()).unwrap().as_map().unwrap().clone())
    }

    async fn request(&self, request: Map) -> Result<Reply, RequestError> {
        let payload = Payload::fobs(encode(&request.into()).unwrap());
        let request = Request::new("download_service__", "download_service__download", payload);
        self.cell.request(&Fqcn::server(), request).await?.into_ok()
    }
}

fn text(text: &str) -> Payload {
    Payload::fobs(encode(&text.into()).unwrap())
}

fn document(reply: &Reply) -> ReplyDocument {
    let value = decode(reply.payload.body.whole()).unwrap();
    ReplyDocument::parse(value.as_str().unwrap()).unwrap()
}

fn chunk_of(id: &str, seq: usize, data: &[u8], last: bool, ctx: Option<(&str, usize)>) -> Request {
    let mut request = AuxRequest::new("ObjectStreamer.Request", to_props(&server_context("ann", None)));
    request.headers.insert("ObjectStreamer.CHANNEL", "hci.upload");
    request.headers.insert("ObjectStreamer.TOPIC", "folder");
    request.headers.insert("ObjectStreamer.TX_ID", id);
    request.headers.insert("ObjectStreamer.SEQ", seq as i64);
    if let Some((command, size)) = ctx {
        let ctx = Map::from_iter([
            ("conn_data", Value::from(command)),
            ("FileStreamer.file_size", (size as i64).into()),
        ]);
        request.headers.insert("ObjectStreamer.CTX", ctx);
    }
    request.fields.insert("Streamer.data", bytes::Bytes::copy_from_slice(data));
    request.fields.insert("Streamer.size", data.len() as i64);
    request.fields.insert("Streamer.eof", last);
    Request::new(AuxRequest::CHANNEL, &*request.topic, request.to_parts().unwrap().payload)
}
