//! What the faults do to links.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, SinkExt, StreamExt};
use locule_transport::{DialError, Endpoint, Link, LinkError, OutFrame, Security, Transport};
use locule_transport_mem::MemTransport;

async fn pair(network: &MemTransport) -> (Link, Link) {
    let at = Endpoint::parse("mem://hospital").unwrap();
    let mut listener = network.listen(&at).await.unwrap();
    let near = network.dial(&at).await.unwrap();
    let far = listener.accept().await.unwrap();
    (near, far)
}

fn frame(text: &'static str) -> OutFrame {
    OutFrame::from(Bytes::from_static(text.as_bytes()))
}

#[tokio::test]
async fn a_cut_link_loses_what_it_carried_and_both_ends_notice() {
    let network = MemTransport::new();
    let (mut near, mut far) = pair(&network).await;
    near.outgoing.send(frame("lost")).await.unwrap();
    network.faults().cut();
    assert!(matches!(far.incoming.next().await, Some(Err(LinkError::Broken { .. }))));
    assert!(far.incoming.next().await.is_none());
    assert!(matches!(near.incoming.next().await, Some(Err(LinkError::Broken { .. }))));
    assert!(matches!(near.outgoing.send(frame("more")).await, Err(LinkError::Broken { .. })));
}

#[tokio::test]
async fn a_cut_wakes_a_reader_that_waits() {
    let network = MemTransport::new();
    let (_near, mut far) = pair(&network).await;
    let waiting = tokio::spawn(async move { far.incoming.next().await });
    tokio::task::yield_now().await;
    network.faults().cut();
    assert!(matches!(waiting.await.unwrap(), Some(Err(LinkError::Broken { .. }))));
}

#[tokio::test]
async fn a_link_is_cut_after_a_number_of_frames() {
    let network = MemTransport::new();
    network.faults().cut_after(2);
    let (mut near, mut far) = pair(&network).await;
    for text in ["one", "two", "three"] {
        near.outgoing.send(frame(text)).await.unwrap();
    }
    assert_eq!(far.incoming.next().await.unwrap().unwrap(), "one");
    assert_eq!(far.incoming.next().await.unwrap().unwrap(), "two");
    assert!(far.incoming.next().await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn delayed_frames_arrive_later_and_in_order() {
    let network = MemTransport::new();
    let (mut near, mut far) = pair(&network).await;
    network.faults().delay(Duration::from_secs(30));
    near.outgoing.send(frame("late")).await.unwrap();
    network.faults().delay(Duration::ZERO);
    near.outgoing.send(frame("behind")).await.unwrap();
    assert!(far.incoming.next().now_or_never().is_none());
    let start = tokio::time::Instant::now();
    assert_eq!(far.incoming.next().await.unwrap().unwrap(), "late");
    assert_eq!(start.elapsed().as_secs(), 30);
    assert_eq!(far.incoming.next().await.unwrap().unwrap(), "behind");
}

#[tokio::test]
async fn held_frames_arrive_when_they_are_released() {
    let network = MemTransport::new();
    let (mut near, mut far) = pair(&network).await;
    network.faults().at("hospital").hold();
    network.faults().at("elsewhere").release();
    near.outgoing.send(frame("kept")).await.unwrap();
    let waiting = tokio::spawn(async move { far.incoming.next().await });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    network.faults().release();
    assert_eq!(waiting.await.unwrap().unwrap().unwrap(), "kept");
}

#[tokio::test]
async fn an_unreachable_listener_refuses_until_it_is_healed() {
    let network = MemTransport::new();
    let at = Endpoint::parse("mem://hospital").unwrap();
    let _listener = network.listen(&at).await.unwrap();
    network.faults().at("hospital").refuse();
    assert!(matches!(network.dial(&at).await, Err(DialError::Refused { .. })));
    network.faults().heal();
    assert!(network.dial(&at).await.is_ok());
}

#[tokio::test]
async fn each_end_sees_what_the_other_claims() {
    let network = MemTransport::new();
    let at = Endpoint::parse("mem://server").unwrap();
    let mut listener = network.clone().claiming("server").listen(&at).await.unwrap();
    let site = network.clone().claiming("site-1").pretending(Security::Mutual);
    let near = site.dial(&at).await.unwrap();
    let far = listener.accept().await.unwrap();
    assert_eq!((near.peer.common_name.as_deref(), near.peer.security), (Some("server"), Security::Internal));
    assert_eq!((far.peer.common_name.as_deref(), far.peer.security), (Some("site-1"), Security::Mutual));
}

#[tokio::test]
async fn namespaces_do_not_reach_each_other() {
    let at = Endpoint::parse("mem://server").unwrap();
    let _listener = MemTransport::new().listen(&at).await.unwrap();
    assert!(matches!(MemTransport::new().dial(&at).await, Err(DialError::Refused { .. })));
}
