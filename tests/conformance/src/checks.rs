//! The promises of a carrier, one function each.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::future::poll_fn;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{FutureExt, SinkExt, StreamExt};
use locule_transport::{Link, LinkError, ListenError, OutFrame};

use crate::{Fixture, MAX_FRAME_LEN};

/// How long a writer must make no progress to count as stalled.
const STALLED: Duration = Duration::from_millis(500);

/// A frame whose bytes tell its number and length apart from every other's, cut in two anywhere. As far as
/// it has room, it begins with its length, which some carriers need.
fn numbered(number: usize, len: usize) -> OutFrame {
    let mut frame = BytesMut::with_capacity(len.max(12));
    frame.put_u32(len as u32);
    frame.put_u64(number as u64);
    frame.truncate(len);
    frame.extend((frame.len()..len).map(|place| (place * 31 + number * 7) as u8));
    let mut head = frame.freeze();
    let body = head.split_off(number * 13 % (len + 1));
    OutFrame { head, body }
}

/// A frame that every carrier takes, and that is no other's.
fn text(text: &str) -> OutFrame {
    let mut frame = BytesMut::new();
    frame.put_u32(16 + text.len() as u32);
    frame.put_bytes(0, 12);
    frame.put(text.as_bytes());
    OutFrame::from(frame.freeze())
}

async fn next(link: &mut Link) -> Bytes {
    link.incoming.next().await.expect("the link has not ended").expect("the link is sound")
}

/// Waits until the link gives nothing any more; whether with an error or not is the carrier's affair.
async fn ended(link: &mut Link) {
    while let Some(outcome) = link.incoming.next().await {
        match outcome {
            Ok(_) => {}
            Err(LinkError::Closed | LinkError::Broken { .. }) => {}
            Err(other) => panic!("a closed link says {other}"),
        }
    }
}

/// Sends until the link refuses: a carrier may take a few frames before it knows.
async fn refused(link: &mut Link) -> LinkError {
    loop {
        if let Err(error) = link.outgoing.send(text("are you there?")).await {
            return error;
        }
        tokio::task::yield_now().await;
    }
}

/// Frames arrive whole and in the order in which they were sent, wherever they are cut in two.
pub async fn frames_arrive_whole_and_in_order(fixture: Fixture) {
    let (mut near, mut far) = fixture.link().await;
    let lens =
        [1, 2, 15, 16, 17, 1000, 4095, 4096, 8191, 8193, 16_384, 65_535, 65_537, 300_000, MAX_FRAME_LEN - 1];
    let lens = lens.map(|len| len.max(fixture.min_frame_len));
    let sending = async {
        for (number, len) in lens.into_iter().enumerate() {
            near.outgoing.feed(numbered(number, len)).await.unwrap();
        }
        near.outgoing.flush().await.unwrap();
    };
    let receiving = async {
        for (number, len) in lens.into_iter().enumerate() {
            assert_eq!(next(&mut far).await, numbered(number, len).into_bytes(), "frame {number}");
        }
    };
    tokio::join!(sending, receiving);
}

/// An empty frame is a frame, where the carrier takes it, and so is the largest one.
pub async fn the_smallest_and_the_largest_frames_arrive(fixture: Fixture) {
    let (mut near, mut far) = fixture.link().await;
    let lens = [fixture.min_frame_len, fixture.min_frame_len + 1, MAX_FRAME_LEN, fixture.min_frame_len];
    assert_eq!((near.max_frame_len, far.max_frame_len), (MAX_FRAME_LEN, MAX_FRAME_LEN));
    for (from, to) in [(0, 1), (1, 0)] {
        let ends = &mut [&mut near, &mut far];
        let [from, to] = ends.get_disjoint_mut([from, to]).unwrap();
        let sending = async {
            for len in lens {
                from.outgoing.send(numbered(len, len)).await.unwrap();
            }
        };
        let receiving = async {
            for len in lens {
                assert_eq!(next(to).await, numbered(len, len).into_bytes(), "{len} bytes");
            }
        };
        tokio::join!(sending, receiving);
    }
}

/// One byte too many is refused, not cut off, and what follows is sent.
pub async fn a_frame_above_max_is_refused_and_the_link_goes_on(fixture: Fixture) {
    let (mut near, mut far) = fixture.link().await;
    for end in [&mut near, &mut far] {
        let refused = end.outgoing.send(numbered(0, MAX_FRAME_LEN + 1)).await;
        assert!(
            matches!(refused, Err(LinkError::FrameTooLarge { len, max }) if (len, max) == (MAX_FRAME_LEN + 1, MAX_FRAME_LEN)),
            "{refused:?}"
        );
        end.outgoing.send(text("next")).await.unwrap();
    }
    assert_eq!(next(&mut far).await, text("next").into_bytes());
    assert_eq!(next(&mut near).await, text("next").into_bytes());
}

/// The receive limit counts from the next frame, and a frame above it closes the link.
pub async fn a_frame_above_the_receive_limit_ends_the_link(fixture: Fixture) {
    let (mut near, mut far) = fixture.link().await;
    far.receive_limit.set(100);
    near.outgoing.send(numbered(1, 100)).await.unwrap();
    assert_eq!(next(&mut far).await.len(), 100);
    far.receive_limit.set(usize::MAX);
    assert_eq!(far.receive_limit.get(), MAX_FRAME_LEN);
    near.outgoing.send(numbered(2, 200_000)).await.unwrap();
    assert_eq!(next(&mut far).await.len(), 200_000);
    far.receive_limit.set(100);
    near.outgoing.send(numbered(3, 200_000)).await.unwrap();
    let outcome = far.incoming.next().await;
    assert!(matches!(outcome, Some(Err(LinkError::FrameTooLarge { max: 100, .. }))), "{outcome:?}");
    assert!(far.incoming.next().await.is_none());
    refused(&mut near).await;
    ended(&mut near).await;
}

/// Neither end waits for the other to say something.
pub async fn either_end_may_speak_first(fixture: Fixture) {
    let (mut near, mut far) = fixture.link().await;
    far.outgoing.send(text("listener first")).await.unwrap();
    assert_eq!(next(&mut near).await, text("listener first").into_bytes());
    let (mut near, mut far) = fixture.link().await;
    near.outgoing.send(text("dialer first")).await.unwrap();
    assert_eq!(next(&mut far).await, text("dialer first").into_bytes());
}

/// A closed direction ends properly, once; the other one goes on.
pub async fn closing_one_direction_leaves_the_other(fixture: Fixture) {
    for near_closes in [true, false] {
        let (mut near, mut far) = fixture.link().await;
        let (closer, other) = if near_closes { (&mut near, &mut far) } else { (&mut far, &mut near) };
        closer.outgoing.send(text("last")).await.unwrap();
        closer.outgoing.close().await.unwrap();
        closer.outgoing.close().await.unwrap();
        assert!(closer.outgoing.send(text("too late")).await.is_err());
        assert_eq!(next(other).await, text("last").into_bytes());
        assert!(other.incoming.next().await.is_none(), "a proper end is no error");
        other.outgoing.send(text("still here")).await.unwrap();
        assert_eq!(next(closer).await, text("still here").into_bytes());
        other.outgoing.close().await.unwrap();
        assert!(closer.incoming.next().await.is_none(), "a proper end is no error");
    }
}

/// Whoever closes and leaves at once has been heard.
pub async fn what_was_sent_before_a_close_arrives(fixture: Fixture) {
    for near_leaves in [true, false] {
        let (near, far) = fixture.link().await;
        let (mut leaving, mut staying) = if near_leaves { (near, far) } else { (far, near) };
        let len = |number: usize| (10_000 * number).max(fixture.min_frame_len);
        let leaving = async move {
            for number in 0..20 {
                leaving.outgoing.feed(numbered(number, len(number))).await.unwrap();
            }
            leaving.outgoing.close().await.unwrap();
        };
        let staying = async {
            for number in 0..20 {
                assert_eq!(next(&mut staying).await.len(), len(number));
            }
            ended(&mut staying).await;
        };
        tokio::join!(leaving, staying);
    }
}

/// The peer notices, and so does the half that is left.
pub async fn dropping_either_half_closes_the_link(fixture: Fixture) {
    for near_drops in [true, false] {
        for outgoing_goes in [true, false] {
            let (near, far) = fixture.link().await;
            let (dropping, mut other) = if near_drops { (near, far) } else { (far, near) };
            let Link { mut outgoing, mut incoming, .. } = dropping;
            if outgoing_goes {
                drop(outgoing);
                while let Some(Ok(_)) = incoming.next().await {}
            } else {
                drop(incoming);
                while outgoing.send(text("are you there?")).await.is_ok() {}
            }
            ended(&mut other).await;
            refused(&mut other).await;
        }
    }
}

/// Sends 64 KiB frames until the link takes none any more; says how many it took.
async fn fill(link: &mut Link) -> usize {
    let mut sent = 0;
    loop {
        let ready = poll_fn(|cx| link.outgoing.poll_ready_unpin(cx));
        match tokio::time::timeout(STALLED, ready).await {
            Ok(outcome) => outcome.unwrap(),
            Err(_) => return sent,
        }
        link.outgoing.start_send_unpin(numbered(sent, 65_536)).unwrap();
        sent += 1;
        assert!(sent < 1024, "64 MiB were taken that nobody reads");
    }
}

/// What nobody reads is not taken without bound, and nothing of it is lost.
pub async fn a_stalled_reader_stalls_the_writer(fixture: Fixture) {
    for near_writes in [true, false] {
        let (mut near, mut far) = fixture.link().await;
        let (writer, reader) = if near_writes { (&mut near, &mut far) } else { (&mut far, &mut near) };
        let sent = fill(writer).await;
        assert!(sent > 0);
        let sending = async {
            writer.outgoing.send(numbered(sent, 65_536)).await.unwrap();
        };
        let receiving = async {
            for number in 0..=sent {
                assert_eq!(next(reader).await, numbered(number, 65_536).into_bytes(), "frame {number}");
            }
        };
        tokio::join!(sending, receiving);
    }
}

/// A writer that waits for room is woken when its own link is given up.
pub async fn a_stalled_writer_notices_that_its_reader_is_dropped(fixture: Fixture) {
    let (mut near, _far) = fixture.link().await;
    fill(&mut near).await;
    let Link { mut outgoing, incoming, .. } = near;
    // a busy machine may have stalled for a moment only: what finds room is no matter
    let waiting = tokio::spawn(async move {
        for number in 0..1024 {
            outgoing.send(numbered(number, 65_536)).await?;
        }
        Ok::<_, LinkError>(())
    });
    tokio::task::yield_now().await;
    drop(incoming);
    assert!(waiting.await.unwrap().is_err());
}

/// Many small frames, both directions at once.
pub async fn ten_thousand_frames_pass_both_ways(fixture: Fixture) {
    const FRAMES: usize = 10_000;
    let (near, far) = fixture.link().await;
    let ends = [near, far].map(|Link { mut outgoing, mut incoming, .. }| {
        let sending = tokio::spawn(async move {
            for number in 0..FRAMES {
                outgoing.feed(numbered(number, 16 + number % 200)).await.unwrap();
                if number % 64 == 0 {
                    outgoing.flush().await.unwrap();
                }
            }
            outgoing.close().await.unwrap();
        });
        let receiving = tokio::spawn(async move {
            for number in 0..FRAMES {
                let frame = incoming.next().await.unwrap().unwrap();
                assert_eq!(frame, numbered(number, 16 + number % 200).into_bytes());
            }
            assert!(incoming.next().await.is_none());
        });
        (sending, receiving)
    });
    for (sending, receiving) in ends {
        sending.await.unwrap();
        receiving.await.unwrap();
    }
}

/// Each link of a listener has its own frames and its own end.
pub async fn links_of_a_listener_do_not_mix(fixture: Fixture) {
    let mut listener = fixture.listener().await;
    let (mut first, mut first_far) = fixture.link_to(listener.as_mut()).await;
    let (mut second, mut second_far) = fixture.link_to(listener.as_mut()).await;
    second.outgoing.send(text("second")).await.unwrap();
    first.outgoing.send(text("first")).await.unwrap();
    assert_eq!(next(&mut first_far).await, text("first").into_bytes());
    assert_eq!(next(&mut second_far).await, text("second").into_bytes());
    drop(first);
    ended(&mut first_far).await;
    second_far.outgoing.send(text("still here")).await.unwrap();
    assert_eq!(next(&mut second).await, text("still here").into_bytes());
}

/// An `accept` that is given up loses no link.
pub async fn accept_is_cancel_safe(fixture: Fixture) {
    const LINKS: usize = 20;
    let mut listener = fixture.listener().await;
    let local = listener.local();
    let mut near = Vec::new();
    let mut far = Vec::new();
    for _ in 0..LINKS {
        far.extend(listener.accept().now_or_never());
        near.push(fixture.dialling.dial(&local).await.unwrap());
        far.extend(listener.accept().now_or_never());
        tokio::task::yield_now().await;
    }
    while far.len() < LINKS {
        far.push(listener.accept().await);
    }
    for (number, link) in near.iter_mut().enumerate() {
        link.outgoing.send(numbered(number, 16)).await.unwrap();
    }
    let mut seen = Vec::new();
    for link in far {
        seen.push(next(&mut link.unwrap()).await);
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..LINKS).map(|number| numbered(number, 16).into_bytes()).collect::<Vec<_>>());
}

/// Nobody there: an error at once, and one after which it makes sense to try again.
pub async fn dialling_where_nobody_listens_is_refused(fixture: Fixture) {
    let error = fixture.dialling.dial(&fixture.nowhere).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert!(error.to_string().contains(&fixture.nowhere.to_string()), "{error}");
}

/// The second listener is told that it is the second.
pub async fn an_address_in_use_is_said(fixture: Fixture) {
    let listener = fixture.listener().await;
    let error = fixture.listening.listen(&listener.local()).await.unwrap_err();
    assert!(matches!(error, ListenError::AddressInUse { .. }), "{error}");
    assert!(error.to_string().contains(&listener.local().to_string()), "{error}");
}

/// Listening can stop while links go on, and start again.
pub async fn a_dropped_listener_frees_its_address_and_keeps_its_links(fixture: Fixture) {
    let mut listener = fixture.listener().await;
    let local = listener.local();
    let (mut near, mut far) = fixture.link_to(listener.as_mut()).await;
    drop(listener);
    let mut listener = loop {
        // The carrier may need a moment to let go.
        match fixture.listening.listen(&local).await {
            Ok(listener) => break listener,
            Err(ListenError::AddressInUse { .. }) => tokio::task::yield_now().await,
            Err(other) => panic!("{other}"),
        }
    };
    near.outgoing.send(text("still here")).await.unwrap();
    assert_eq!(next(&mut far).await, text("still here").into_bytes());
    let (mut near, mut far) = fixture.link_to(listener.as_mut()).await;
    near.outgoing.send(text("new here")).await.unwrap();
    assert_eq!(next(&mut far).await, text("new here").into_bytes());
}

/// Protection, certificate and name of the peer are surfaced, at both ends.
pub async fn each_end_sees_who_the_other_is(fixture: Fixture) {
    let (near, far) = fixture.link().await;
    assert_eq!((near.peer.security, far.peer.security), (fixture.security, fixture.security));
    let seen = [near.peer.common_name.as_deref(), far.peer.common_name.as_deref()];
    assert_eq!(seen, fixture.names.map_or([None; 2], |names| names.map(Some)));
    for peer in [near.peer, far.peer] {
        assert_eq!(peer.certificates.is_empty(), fixture.names.is_none());
        assert!(!peer.address.is_empty());
    }
}
