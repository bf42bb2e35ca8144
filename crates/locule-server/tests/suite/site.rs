//! A site made by hand: step by step as long as it registers, by orders and questions afterwards.

use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use locule_auth::SessionStamp;
use locule_cell::{Cell, HandlerError, Incoming, Reply, Request, RequestError};
use locule_fobs::{Map, Shareable};
use locule_identity::{Challenge, Registration, Secret, ServerProof, ServerProven, Session, Signer, Token};
use locule_message::Fqcn;
use locule_protocol::{
    AdminBody, AdminCommand, AdminRequest, Assignment, AuxReply, AuxRequest, ChallengeReply,
    ChallengeRequest, ClientType, GetTask, Heartbeat, HeartbeatReply, NVFLARE_VERSION, OutcomeReport, Parts,
    Quit, QuitReply, Refusal, RegisterReply, RegisterRequest, RegistrationProof, Shortage, SubmitUpdate,
    TaskReply, outcome, site_context, to_props,
};
use tokio::sync::mpsc;

use crate::scene::{PROJECT, Scene, signer, verifier};

/// Asks the server.
pub(crate) async fn ask(
    cell: &Cell,
    channel: &str,
    topic: &str,
    parts: Parts,
) -> Result<Reply, RequestError> {
    let mut request = Request::new(channel, topic, parts.payload);
    request.headers = parts.headers;
    cell.request(&Fqcn::server(), request).await
}

/// Asks the server and expects to be refused as nobody it knows; why.
pub(crate) async fn refused(cell: &Cell, channel: &str, topic: &str, parts: Parts) -> String {
    let reply = ask(cell, channel, topic, parts).await.expect("a refusal is an answer");
    assert_eq!(reply.code.as_str(), "unauthenticated", "{:?}", reply.error);
    reply.error.expect("a refusal has a reason")
}

/// The first half of a registration.
pub(crate) async fn challenge(cell: &Cell, own: &dyn Signer) -> ServerProven {
    let challenge = Challenge::new(own.identity(), &mut rand::rng()).unwrap();
    let ask_it =
        ChallengeRequest { common_name: challenge.cn().to_owned(), nonce: challenge.nonce().to_owned() };
    let reply = ask(cell, "task", ChallengeRequest::TOPIC, ask_it.to_parts().unwrap()).await;
    let reply = reply.unwrap().into_ok().unwrap();
    let reply = ChallengeReply::from_parts(&reply.headers, &reply.payload).unwrap();
    let proof = ServerProof {
        nonce: reply.nonce,
        cn: reply.common_name,
        cert: reply.certificate.to_vec(),
        signature: reply.signature.to_vec(),
    };
    challenge.prove_server(&proof, "flserver", &*verifier(), SystemTime::now()).unwrap()
}

/// The message of the second half.
pub(crate) fn registration(name: &str, registration: &Registration) -> RegisterRequest {
    let proof = registration.proof();
    RegisterRequest {
        client_name: name.to_owned(),
        client_type: ClientType::Regular,
        client_ip: "127.0.0.1".into(),
        project_name: PROJECT.into(),
        peer: site_context(name, None),
        proof: Some(RegistrationProof {
            certificate: proof.cert.clone().into(),
            common_name: proof.cn.clone(),
            signature: proof.signature.clone().into(),
        }),
        site_config: None,
        version: Some(NVFLARE_VERSION.into()),
    }
}

/// A site that was told to do something.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Order {
    CheckResource(String),
    CancelResource(String),
    Check,
    Deploy(String),
    Start(String),
    Abort(String),
}

/// What a site does with an order; it need not answer.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Yes,
    No(&'static str),
    /// It lacks what a job needs.
    Short(&'static str, Shortage),
    Refuses(Refusal),
    Never,
}

type Script = Arc<Mutex<Box<dyn Fn(&Order) -> Answer + Send>>>;

pub(crate) struct Site {
    pub(crate) name: String,
    pub(crate) cell: Cell,
    pub(crate) stamp: Arc<SessionStamp>,
    pub(crate) session: Session,
    orders: mpsc::UnboundedReceiver<Order>,
    script: Script,
}

impl Site {
    /// A site that has registered and sent its first heartbeat.
    pub(crate) async fn join(scene: &Scene, name: &str) -> Self {
        let site = Self::register(scene, name).await;
        site.beat(&[]).await;
        site
    }

    pub(crate) async fn register(scene: &Scene, name: &str) -> Self {
        Self::register_as(scene, name, |_| {}).await
    }

    /// A site of nvflare 2.8 that has joined, or of 2.7, which tells nothing of its configuration.
    pub(crate) async fn join_older(scene: &Scene, name: &str, site_config: Option<Map>) -> Self {
        let silent =
            |request: &mut RegisterRequest| (request.version, request.site_config) = (None, site_config);
        let site = Self::register_as(scene, name, silent).await;
        site.beat(&[]).await;
        site
    }

    async fn register_as(scene: &Scene, name: &str, change: impl FnOnce(&mut RegisterRequest)) -> Self {
        let cell = scene.linked(name, name).await;
        let (tell, orders) = mpsc::unbounded_channel();
        let script: Script = Arc::new(Mutex::new(Box::new(|_| Answer::Yes)));
        obey(&cell, script.clone(), tell);
        let stamp = Arc::new(SessionStamp::new());
        cell.add_stamp(stamp.clone());
        let session = session(&cell, name, change).await;
        stamp.set(session.clone());
        Self { name: name.to_owned(), cell, stamp, session, orders, script }
    }

    /// Goes on with another cell.
    pub(crate) fn move_to(&mut self, cell: Cell) {
        let (tell, orders) = mpsc::unbounded_channel();
        obey(&cell, self.script.clone(), tell);
        (self.cell, self.orders) = (cell, orders);
    }

    /// From now on it answers orders so.
    pub(crate) fn answers(&self, script: impl Fn(&Order) -> Answer + Send + 'static) {
        *self.script.lock().unwrap() = Box::new(script);
    }

    pub(crate) fn heartbeat(&self, jobs: &[&str]) -> Parts {
        let job_ids = jobs.iter().map(|job| (*job).to_owned()).collect();
        let peer = site_context(&self.name, None);
        Heartbeat { project_name: PROJECT.into(), job_ids, peer }.to_parts().unwrap()
    }

    /// Sends a heartbeat; the jobs that it is told to abort.
    pub(crate) async fn beat(&self, jobs: &[&str]) -> Vec<String> {
        let reply = ask(&self.cell, "task", Heartbeat::TOPIC, self.heartbeat(jobs)).await;
        let reply = reply.unwrap().into_ok().unwrap();
        HeartbeatReply::from_parts(&reply.headers, &reply.payload).unwrap().abort_jobs
    }

    pub(crate) async fn quit(&self) -> String {
        let quit = Quit { project_name: PROJECT.into(), peer: site_context(&self.name, None) };
        let reply = ask(&self.cell, "task", Quit::TOPIC, quit.to_parts().unwrap()).await;
        let reply = reply.unwrap().into_ok().unwrap();
        QuitReply::from_parts(&reply.headers, &reply.payload).unwrap().message
    }

    /// The next order that the site gets.
    pub(crate) async fn ordered(&mut self) -> Order {
        self.orders.recv().await.unwrap()
    }

    /// Waits until the site is told to start a job.
    pub(crate) async fn started(&mut self) -> String {
        loop {
            if let Order::Start(job) = self.ordered().await {
                return job;
            }
        }
    }

    /// What it was ordered lately.
    pub(crate) fn orders(&mut self) -> Vec<Order> {
        std::iter::from_fn(|| self.orders.try_recv().ok()).collect()
    }

    pub(crate) async fn report(&self, report: OutcomeReport) {
        let reply = ask(&self.cell, "task", OutcomeReport::TOPIC, report.to_parts().unwrap()).await;
        reply.unwrap().into_ok().unwrap();
    }

    pub(crate) async fn report_code(&self, job: &str, code: i64, reason: &str) {
        self.report(OutcomeReport::new(job, code, Some(reason.to_owned()))).await;
    }

    /// The cell of the site's half of a job, which shows the site's certificate and token.
    pub(crate) async fn job(&self, scene: &Scene, job: &str) -> SiteJob {
        let cell = scene.linked(&format!("{}.{job}", self.name), &self.name).await;
        cell.add_stamp(self.stamp.clone());
        SiteJob { site: self.name.clone(), job: job.to_owned(), cell }
    }

    /// Starts when it is told to, answers every task with `number`, and reports that all went well.
    pub(crate) async fn work(&mut self, scene: &Scene, number: i64) {
        let id = self.started().await;
        let job = self.job(scene, &id).await;
        while let Some(task) = job.pull().await {
            job.submit(&task, result(number)).await;
        }
        self.report(OutcomeReport { tasks_done: 1, ..OutcomeReport::new(&id, outcome::DONE, None) }).await;
    }
}

async fn session(cell: &Cell, site: &str, change: impl FnOnce(&mut RegisterRequest)) -> Session {
    let own = signer(site);
    let open = challenge(cell, &*own).await.register(&*own).unwrap();
    let mut request = registration(site, &open);
    change(&mut request);
    let parts = request.to_parts().unwrap();
    let reply = ask(cell, "task", RegisterRequest::TOPIC, parts).await.unwrap().into_ok().unwrap();
    match RegisterReply::from_parts(&reply.headers, &reply.payload).unwrap() {
        RegisterReply::Granted { token, signature, ssid, .. } => {
            let token = Token { token: Secret::from(token), signature: Secret::from(signature), ssid };
            open.accept(token, &*verifier()).unwrap()
        }
        RegisterReply::Refused => panic!("{site} was not registered"),
    }
}

fn obey(cell: &Cell, script: Script, tell: mpsc::UnboundedSender<Order>) {
    cell.handle(AdminRequest::CHANNEL, AdminRequest::TOPIC, move |incoming: Incoming| {
        let (script, tell) = (script.clone(), tell.clone());
        async move {
            let request = AdminRequest::from_parts(&incoming.headers, &incoming.payload()).unwrap();
            let order = match &request.command {
                AdminCommand::CheckResource { job_id, .. } => Order::CheckResource(job_id.clone()),
                AdminCommand::CancelResource { job_id, .. } => Order::CancelResource(job_id.clone()),
                AdminCommand::Deploy { job_id, .. } => Order::Deploy(job_id.clone()),
                AdminCommand::CheckJob { .. } => Order::Check,
                AdminCommand::StartJob { job_id, token, .. } => {
                    assert_eq!(token, "reserved");
                    Order::Start(job_id.clone())
                }
                AdminCommand::Abort { job_id } => Order::Abort(job_id.clone()),
                AdminCommand::NotifyJobStatus { .. }
                | AdminCommand::CheckStatus
                | AdminCommand::Shutdown
                | AdminCommand::ShowStats { .. }
                | AdminCommand::ShowErrors { .. }
                | AdminCommand::Other { .. } => panic!("nobody expects {request:?}"),
            };
            let answer = script.lock().unwrap()(&order);
            let order_is_check = order == Order::Check;
            let asks_for_room = matches!(order, Order::CheckResource(_));
            tell.send(order).ok();
            let body = |enough, text: &str| match asks_for_room {
                true if enough => AdminBody::room(text),
                true => AdminBody::no_room(text, None),
                false => AdminBody::Text(text.to_owned()),
            };
            let reply = match answer {
                Answer::Yes if order_is_check => {
                    request.reply(true, AdminBody::Text(r#"{"verdict": "allowed", "text": ""}"#.into()))
                }
                Answer::Yes => request.reply(true, body(true, "reserved")),
                Answer::Refuses(refusal) if order_is_check => {
                    let document = r#"{"verdict": "refused", "text": "not here"}"#;
                    let mut reply = request.reply(true, AdminBody::Text(document.into()));
                    reply.refusals = vec![refusal];
                    reply
                }
                Answer::Short(reason, shortage) => {
                    request.reply(true, AdminBody::no_room(reason, Some(shortage)))
                }
                Answer::No(reason) => request.reply(asks_for_room, body(false, reason)),
                Answer::Refuses(refusal) => {
                    let mut reply = request.reply(false, body(false, "refused: as it says"));
                    reply.refusals = vec![refusal];
                    reply
                }
                Answer::Never => std::future::pending().await,
            };
            let parts = reply.to_parts().unwrap();
            Ok::<_, HandlerError>(Reply::ok(parts.payload))
        }
    });
}

/// A site's half of a job.
pub(crate) struct SiteJob {
    site: String,
    job: String,
    pub(crate) cell: Cell,
}

impl SiteJob {
    fn server_half(&self) -> Fqcn {
        Fqcn::server().child(&self.job).unwrap()
    }

    pub(crate) async fn request(
        &self,
        channel: &str,
        topic: &str,
        parts: Parts,
    ) -> Result<Reply, RequestError> {
        let mut request = Request::new(channel, topic, parts.payload);
        request.headers.extend_missing(&parts.headers);
        self.cell.request(&self.server_half(), request).await
    }

    pub(crate) fn question(&self) -> Parts {
        let peer = site_context(&self.site, Some(&self.job));
        GetTask { project_name: PROJECT.into(), peer, last_task_id: None }.to_parts().unwrap()
    }

    pub(crate) async fn pull_once(&self) -> TaskReply {
        let reply = self.request(GetTask::CHANNEL, GetTask::TOPIC, self.question()).await;
        let reply = reply.unwrap().into_ok().unwrap();
        TaskReply::from_parts(&reply.headers, &reply.payload).unwrap()
    }

    /// The next task; none when the run is over.
    pub(crate) async fn pull(&self) -> Option<Box<Assignment>> {
        loop {
            match self.pull_once().await {
                TaskReply::Task(task) => return Some(task),
                TaskReply::TryAgain { .. } => {}
                TaskReply::EndRun { .. } => return None,
            }
        }
    }

    pub(crate) fn submission(&self, task: &Assignment, result: Shareable) -> SubmitUpdate {
        SubmitUpdate {
            project_name: PROJECT.into(),
            task_name: task.name.clone(),
            task_id: task.id.clone(),
            cookies: task.cookies.clone(),
            result,
            peer: site_context(&self.site, Some(&self.job)),
        }
    }

    /// Hands a result in; what became of it.
    pub(crate) async fn submit(&self, task: &Assignment, result: Shareable) -> String {
        let parts = self.submission(task, result).to_parts().unwrap();
        let reply = self.request(SubmitUpdate::CHANNEL, SubmitUpdate::TOPIC, parts).await;
        let reply = reply.unwrap().into_ok().unwrap();
        reply.headers.str("locule.submission").unwrap().to_owned()
    }

    pub(crate) async fn aux(&self, request: AuxRequest) -> String {
        let parts = request.to_parts().unwrap();
        let reply =
            self.request(AuxRequest::CHANNEL, &request.topic, parts).await.unwrap().into_ok().unwrap();
        AuxReply::from_parts(&reply.headers, &reply.payload).unwrap().code
    }

    /// Whether a result of this task is still wanted.
    pub(crate) async fn check(&self, task: &str) -> String {
        let props = to_props(&site_context(&self.site, Some(&self.job)));
        self.aux(AuxRequest::task_check(task, props)).await
    }
}

pub(crate) fn result(number: i64) -> Shareable {
    let mut result = Shareable::new();
    result.fields.insert("number", number);
    result
}
