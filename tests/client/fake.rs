//! A node that does what the test tells it: the announced contract, without a cluster behind it.

use std::collections::VecDeque;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, dev::ServerHandle, web};
use image_cloud::client::NodeAddress;
use image_cloud::id::{Incarnation, Load, LogPosition, NodeId, RequestId, Term};
use image_cloud::protocol::event::{Event, EventKind};
use image_cloud::protocol::job::{Announcement, EncryptionResponse, route};
use image_cloud::protocol::problem::Problem;
use image_cloud::protocol::status::{Leadership, NodeState, NodeStatus, PeerStatus, RaftRole};
use image_cloud::protocol::sync::FailCommand;

/// How announcements are answered.
#[derive(Clone, Debug)]
pub enum Announcing {
    Answer,
    AnswerAfter(Duration),
    Hang,
    WrongJson,
}

/// How one upload is answered.
#[derive(Clone, Debug)]
pub enum Uploading {
    Ok,
    OkAfter(Duration),
    Refuse(Box<Problem>),
    Hang,
    Endless,
    Status(u16),
}

/// What the node does, and what it has seen.
#[derive(Clone, Debug)]
pub struct Script {
    pub state: NodeState,
    pub load: f64,
    pub coordinator: Option<(u64, u16)>,
    pub placement: Option<u16>,
    pub announcing: Announcing,
    /// Answers to the next uploads; when it is empty, `Ok`.
    pub uploads: VecDeque<Uploading>,
    pub seen: Seen,
}

#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub posts: usize,
    pub announced: Vec<RequestId>,
    /// Request id, query, size.
    pub uploads: Vec<(RequestId, String, usize)>,
    pub failed_for: Vec<u64>,
}

pub struct FakeNode {
    pub id: NodeId,
    pub url: String,
    script: Arc<Mutex<Script>>,
    handle: ServerHandle,
    thread: Option<JoinHandle<()>>,
}

struct Inside {
    id: NodeId,
    script: Arc<Mutex<Script>>,
}

impl FakeNode {
    pub fn start(id: u16) -> FakeNode {
        FakeNode::start_on(id, TcpListener::bind("127.0.0.1:0").unwrap())
    }

    pub fn start_on(id: u16, listener: TcpListener) -> FakeNode {
        let url = format!("http://{}", listener.local_addr().unwrap());
        let script = Arc::new(Mutex::new(Script {
            state: NodeState::Active,
            load: 0.0,
            coordinator: None,
            placement: None,
            announcing: Announcing::Answer,
            uploads: VecDeque::new(),
            seen: Seen::default(),
        }));
        let id = NodeId(id);
        let inside = web::Data::new(Inside { id, script: script.clone() });
        let (sender, receiver) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let server = move || {
                App::new()
                    .app_data(inside.clone())
                    .app_data(web::PayloadConfig::new(64 << 20))
                    .route(route::ANNOUNCEMENTS, web::post().to(announcements))
                    .route(route::SEAL, web::post().to(upload))
                    .route(route::LABEL, web::post().to(upload))
                    .route(route::STATUS, web::get().to(status))
                    .route(route::EVENTS, web::get().to(events))
                    .route(route::FAIL, web::post().to(fail))
            };
            actix_web::rt::System::new().block_on(async move {
                let server = HttpServer::new(server).workers(1).disable_signals().listen(listener).unwrap().run();
                sender.send(server.handle()).unwrap();
                server.await.unwrap();
            });
        });
        FakeNode { id, url, script, handle: receiver.recv().unwrap(), thread: Some(thread) }
    }

    pub fn address(&self) -> NodeAddress {
        NodeAddress { node: None, url: self.url.clone() }
    }

    pub fn set(&self, change: impl FnOnce(&mut Script)) -> &Self {
        change(&mut self.script.lock().unwrap());
        self
    }

    pub fn seen(&self) -> Seen {
        self.script.lock().unwrap().seen.clone()
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        drop(self.handle.stop(false));
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

async fn announcements(node: web::Data<Inside>, body: web::Json<Announcement>) -> HttpResponse {
    let script = {
        let mut script = node.script.lock().unwrap();
        script.seen.posts += 1;
        script.seen.announced.extend(body.requests.iter().map(|request| request.request_id));
        script.clone()
    };
    match script.announcing {
        Announcing::Answer => {}
        Announcing::AnswerAfter(delay) => tokio::time::sleep(delay).await,
        Announcing::Hang => std::future::pending().await,
        Announcing::WrongJson => return HttpResponse::Ok().body("{\"hello\": 1}"),
    }
    let answer = |request_id| EncryptionResponse {
        request_id,
        node: node.id,
        state: script.state,
        load: Load::from(script.load),
        coordinator: script.coordinator.map(|(term, node)| Leadership { term: Term(term), node: NodeId(node) }),
        placement: script.placement.map(NodeId),
    };
    let answers: Vec<_> = body.requests.iter().map(|request| answer(request.request_id)).collect();
    HttpResponse::Ok().json(answers)
}

async fn upload(node: web::Data<Inside>, request: HttpRequest, body: web::Bytes) -> HttpResponse {
    let header = |name: &str| request.headers().get(name).unwrap().to_str().unwrap().to_owned();
    let reply = {
        let mut script = node.script.lock().unwrap();
        let id = header(route::REQUEST_ID).parse().unwrap();
        let query = request.query_string().to_owned();
        script.seen.uploads.push((id, query, body.len()));
        script.uploads.pop_front().unwrap_or(Uploading::Ok)
    };
    let mut response = HttpResponse::Ok();
    response.insert_header((route::NODE, node.id.to_string())).insert_header((route::JOB_MICROS, "1500"));
    match reply {
        Uploading::Ok => {}
        Uploading::OkAfter(delay) => tokio::time::sleep(delay).await,
        Uploading::Refuse(problem) => {
            let status = actix_web::http::StatusCode::from_u16(problem.status).unwrap();
            return HttpResponse::build(status).json(problem);
        }
        Uploading::Hang => std::future::pending().await,
        Uploading::Endless => {
            let chunks = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(web::Bytes::from_static(&[0; 4096])));
            return response.streaming(chunks);
        }
        Uploading::Status(status) => {
            return HttpResponse::build(actix_web::http::StatusCode::from_u16(status).unwrap()).body("?");
        }
    }
    response.content_type("image/png").body(finished(&body))
}

/// What a fake node makes of an image.
pub fn finished(image: &[u8]) -> Vec<u8> {
    [b"done:", image].concat()
}

async fn status(node: web::Data<Inside>) -> HttpResponse {
    let script = node.script.lock().unwrap().clone();
    if matches!(script.announcing, Announcing::Hang) {
        std::future::pending::<()>().await;
    }
    HttpResponse::Ok().json(NodeStatus {
        node: node.id,
        incarnation: Incarnation(7),
        address: "127.0.0.1:1".into(),
        version: "0".into(),
        state: script.state,
        is_outsider: false,
        role: RaftRole::Follower,
        term: Term(script.coordinator.map_or(0, |(term, _)| term)),
        coordinator: script.coordinator.map(|(term, node)| Leadership { term: Term(term), node: NodeId(node) }),
        without_quorum_ms: None,
        cause: None,
        load: Load::from(script.load),
        workers: 1,
        queued: 0,
        running: 0,
        jobs_done: script.seen.uploads.len() as u64,
        jobs_refused: 0,
        repeats_answered: 0,
        placements: 0,
        commit: 10,
        applied: 10 - u64::from(node.id.0),
        last_log: LogPosition::default(),
        uptime_ms: 1000,
        cpu_ms: 1,
        memory_bytes: 1 << 20,
        cluster_id: None,
        faults: Vec::new(),
        peers: vec![PeerStatus {
            address: None,
            node: NodeId(3),
            state: NodeState::Active,
            load: Load::from(0.75),
            last_seen_ms: Some(1234),
        }],
    })
}

async fn events(node: web::Data<Inside>, request: HttpRequest) -> HttpResponse {
    let since: u64 = request.query_string().strip_prefix("since=").unwrap().parse().unwrap();
    let event = |seq| Event {
        seq,
        at_unix_ms: 0,
        node: node.id,
        term: Term(1),
        state: NodeState::Active,
        what: EventKind::Alarm { text: "x".into() },
    };
    HttpResponse::Ok().json((since..4).map(event).collect::<Vec<_>>())
}

async fn fail(node: web::Data<Inside>, command: web::Json<FailCommand>) -> HttpResponse {
    node.script.lock().unwrap().seen.failed_for.push(command.duration_ms);
    HttpResponse::Accepted().json(command.into_inner())
}
