//! The carrier against a peer that it was not written with: the same service, generated, on tonic.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(
    clippy::allow_attributes_without_reason,
    unreachable_pub,
    reason = "generated from proto/streamer.proto"
)]
mod streamer;

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, Stream, StreamExt};
use locule_transport::{Endpoint, Link, LinkError, Listener, OutFrame, Transport};
use locule_transport_grpc::GrpcTransport;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Code, Request, Response, Status, Streaming};

use streamer::Frame;
use streamer::streamer_client::StreamerClient;
use streamer::streamer_server::{Streamer, StreamerServer};

const BIG: usize = 8 << 20;

fn frame(data: impl Into<Bytes>) -> OutFrame {
    OutFrame::from(data.into())
}

async fn listener() -> Box<dyn Listener> {
    GrpcTransport::clear().listen(&Endpoint::parse("grpc://127.0.0.1:0").unwrap()).await.unwrap()
}

async fn stock_client(listener: &dyn Listener) -> StreamerClient<Channel> {
    let client = StreamerClient::connect(format!("http://{}", listener.local().authority())).await.unwrap();
    client.max_decoding_message_size(2 * BIG).max_encoding_message_size(2 * BIG)
}

/// A call of a stock client: what it sends goes into the sender, what it gets comes out of the stream.
async fn stock_call(listener: &dyn Listener) -> (mpsc::Sender<Frame>, Streaming<Frame>) {
    let (sender, mut outgoing) = mpsc::channel(4);
    let outgoing = async_stream(move |cx| outgoing.poll_recv(cx));
    let answer = stock_client(listener).await.stream(outgoing).await.unwrap();
    (sender, answer.into_inner())
}

fn async_stream<T, F>(poll: F) -> impl Stream<Item = T> + Send
where
    F: FnMut(&mut std::task::Context<'_>) -> std::task::Poll<Option<T>> + Send + Unpin,
{
    futures_util::stream::poll_fn(poll)
}

#[tokio::test]
async fn a_stock_client_exchanges_frames_with_our_listener() {
    let mut listener = listener().await;
    let (sender, mut answers) = stock_call(listener.as_ref()).await;
    let mut link = listener.accept().await.unwrap();
    for (number, len) in [0, 1, 1000, BIG, 5].into_iter().enumerate() {
        let data = Bytes::from(vec![number as u8; len]);
        sender.send(Frame { seq: number as i32, data: data.clone() }).await.unwrap();
        assert_eq!(link.incoming.next().await.unwrap().unwrap(), data);
        let frame = OutFrame { head: data.slice(..len / 2), body: data.slice(len / 2..) };
        let (sent, answer) = tokio::join!(link.outgoing.send(frame), answers.message());
        sent.unwrap();
        let answer = answer.unwrap().unwrap();
        assert_eq!((answer.seq, answer.data), (number as i32 + 1, data));
    }
}

#[tokio::test]
async fn a_stock_client_that_half_closes_is_a_proper_end() {
    let mut listener = listener().await;
    let (sender, mut answers) = stock_call(listener.as_ref()).await;
    let mut link = listener.accept().await.unwrap();
    drop(sender);
    assert!(link.incoming.next().await.is_none());
    link.outgoing.send(frame("still here")).await.unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap().data, "still here");
    link.outgoing.close().await.unwrap();
    assert_eq!(answers.message().await.unwrap(), None);
}

#[tokio::test]
async fn a_stock_client_that_cancels_closes_the_link() {
    let mut listener = listener().await;
    let call = stock_call(listener.as_ref()).await;
    let mut link = listener.accept().await.unwrap();
    drop(call);
    while let Some(outcome) = link.incoming.next().await {
        assert!(matches!(outcome, Err(LinkError::Closed)), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_stock_client_sees_our_link_dropped_as_service_closed() {
    let mut listener = listener().await;
    let (_sender, mut answers) = stock_call(listener.as_ref()).await;
    let mut link = listener.accept().await.unwrap();
    link.outgoing.send(frame("bye")).await.unwrap();
    drop(link);
    assert_eq!(answers.message().await.unwrap().unwrap().data, "bye");
    let status = answers.message().await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Cancelled, "service closed"));
}

#[tokio::test]
async fn calls_of_one_connection_are_links_of_their_own() {
    let mut listener = listener().await;
    let client = stock_client(listener.as_ref()).await;
    for number in 0..10 {
        let message = Frame { seq: 1, data: vec![number].into() };
        let outgoing = futures_util::stream::iter([message]).chain(futures_util::stream::pending());
        let _answer = client.clone().stream(outgoing).await.unwrap();
        let mut link = listener.accept().await.unwrap();
        assert_eq!(link.incoming.next().await.unwrap().unwrap(), vec![number]);
    }
}

#[tokio::test]
async fn other_methods_are_unimplemented() {
    let listener = listener().await;
    let channel = Channel::from_shared(format!("http://{}", listener.local().authority())).unwrap();
    let mut client = tonic::client::Grpc::new(channel.connect().await.unwrap());
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<Frame, Frame>::default();
    let path = http::uri::PathAndQuery::from_static("/streamer.Streamer/Other");
    let status = client.unary(Request::new(Frame::default()), path, codec).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

/// A server that answers with a first frame only when it has got one, then echoes until told to end.
struct StockServer;

#[tonic::async_trait]
impl Streamer for StockServer {
    type StreamStream = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

    async fn stream(
        &self,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let mut incoming = request.into_inner();
        // As stock listeners do: no response headers before there is something to say.
        let first = incoming.message().await?.ok_or_else(|| Status::invalid_argument("nothing came"))?;
        if first.data == "go away" {
            return Err(Status::permission_denied("not\nyou"));
        }
        let rest = incoming.map(|message| match message {
            Ok(message) if message.data == "cancel" => Err(Status::cancelled("service closed")),
            Ok(message) if message.data == "fail" => Err(Status::internal("out of order")),
            other => other,
        });
        Ok(Response::new(Box::pin(futures_util::stream::iter([Ok(first)]).chain(rest))))
    }
}

async fn link_to_stock_server() -> Link {
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = incoming.local_addr().unwrap();
    let service = StreamerServer::new(StockServer)
        .max_decoding_message_size(2 * BIG)
        .max_encoding_message_size(2 * BIG);
    tokio::spawn(Server::builder().serve_with_incoming(service, incoming));
    let at = Endpoint::parse(&format!("grpc://{address}")).unwrap();
    timeout(Duration::from_secs(5), GrpcTransport::clear().dial(&at)).await.unwrap().unwrap()
}

async fn next(link: &mut Link) -> Option<Result<Bytes, LinkError>> {
    timeout(Duration::from_secs(10), link.incoming.next()).await.unwrap()
}

#[tokio::test]
async fn our_dialer_speaks_before_the_stock_server_answers() {
    let mut link = link_to_stock_server().await;
    for len in [1, 0, 1000, BIG] {
        let data = Bytes::from(vec![1; len]);
        link.outgoing.send(frame(data.clone())).await.unwrap();
        assert_eq!(next(&mut link).await.unwrap().unwrap(), data);
    }
    link.outgoing.close().await.unwrap();
    assert!(next(&mut link).await.is_none());
}

#[tokio::test]
async fn a_stock_server_that_cancels_closes_the_link() {
    let mut link = link_to_stock_server().await;
    link.outgoing.send(frame("hello")).await.unwrap();
    link.outgoing.send(frame("cancel")).await.unwrap();
    assert_eq!(next(&mut link).await.unwrap().unwrap(), "hello");
    assert!(matches!(next(&mut link).await, Some(Err(LinkError::Closed))));
    assert!(next(&mut link).await.is_none());
}

#[tokio::test]
async fn what_a_stock_server_complains_of_is_shown_escaped() {
    for (words, complaint) in
        [(&["go away"][..], r"grpc status 7 not\nyou"), (&["hello", "fail"], "grpc status 13 out of order")]
    {
        let mut link = link_to_stock_server().await;
        for word in words {
            link.outgoing.send(frame(*word)).await.unwrap();
        }
        let reason = loop {
            match next(&mut link).await {
                Some(Ok(_)) => {}
                Some(Err(LinkError::Refused { reason })) => break reason,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(reason, complaint);
    }
}
