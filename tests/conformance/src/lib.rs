//! One suite that every transport crate passes.
//!
//! A carrier gives a [`Fixture`] and gets one test for each promise of a
//! [`Transport`]:
//!
//! ```
//! # use std::sync::Arc;
//! # use conformance::Fixture;
//! # use locule_transport::{Endpoint, Transport};
//! fn fixture(carrier: Arc<dyn Transport>) -> Fixture {
//!     Fixture {
//!         listening: carrier.clone(), // made with a largest frame of `conformance::MAX_FRAME_LEN`
//!         dialling: carrier,
//!         at: Endpoint::parse("pigeon://127.0.0.1:0").expect("an endpoint"),
//!         nowhere: Endpoint::parse("pigeon://127.0.0.1:1").expect("an endpoint"),
//!         security: locule_transport::Security::Clear,
//!         names: None,
//!         min_frame_len: 0,
//!     }
//! }
//! // In a test: `conformance::all!(fixture(pigeons()));`
//! ```

mod checks;

pub use checks::*;

use std::path::Path;
use std::sync::Arc;

use locule_tls::TlsFiles;
use locule_transport::{Endpoint, Link, Listener, Security, Transport};

/// Largest frame that a fixture's links carry, in bytes.
pub const MAX_FRAME_LEN: usize = 1 << 20;

/// A certificate of the suite with its key and root: `server`, `client` (site-1), or `stranger`, of another root.
pub fn files(leaf: &str) -> TlsFiles {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    TlsFiles {
        ca: data.join("rootCA.pem"),
        cert: data.join(leaf).with_extension("crt"),
        key: data.join(leaf).with_extension("key"),
    }
}

/// A carrier, and what the suite has to know about it.
#[derive(Debug)]
pub struct Fixture {
    /// The end that listens, with [`MAX_FRAME_LEN`].
    pub listening: Arc<dyn Transport>,
    /// The end that dials, with [`MAX_FRAME_LEN`].
    pub dialling: Arc<dyn Transport>,
    /// Where the suite may listen: with port 0, or a name that nobody else uses.
    pub at: Endpoint,
    /// Where nobody listens.
    pub nowhere: Endpoint,
    /// The protection that both ends see.
    pub security: Security,
    /// Common names of the certificates of the listening and the dialling end.
    pub names: Option<[&'static str; 2]>,
    /// Smallest frame that the carrier takes, in bytes. The suite's frames of 4 bytes and more begin with
    /// their length.
    pub min_frame_len: usize,
}

impl Fixture {
    /// A bound listener.
    pub async fn listener(&self) -> Box<dyn Listener> {
        self.listening.listen(&self.at).await.expect("the endpoint can be bound")
    }

    /// A link through a listener: the dialling and the listening end.
    pub async fn link_to(&self, listener: &mut dyn Listener) -> (Link, Link) {
        let near = self.dialling.dial(&listener.local()).await.expect("the listener can be dialled");
        let far = listener.accept().await.expect("the link arrives");
        (near, far)
    }

    /// A link whose listener is gone: the dialling and the listening end.
    pub async fn link(&self) -> (Link, Link) {
        let mut listener = self.listener().await;
        self.link_to(listener.as_mut()).await
    }
}

/// Makes one test of every check, each on a fixture of its own.
#[macro_export]
macro_rules! all {
    ($fixture:expr) => {
        $crate::all! { @each $fixture;
            frames_arrive_whole_and_in_order,
            the_smallest_and_the_largest_frames_arrive,
            a_frame_above_max_is_refused_and_the_link_goes_on,
            a_frame_above_the_receive_limit_ends_the_link,
            either_end_may_speak_first,
            closing_one_direction_leaves_the_other,
            what_was_sent_before_a_close_arrives,
            dropping_either_half_closes_the_link,
            a_stalled_reader_stalls_the_writer,
            a_stalled_writer_notices_that_its_reader_is_dropped,
            ten_thousand_frames_pass_both_ways,
            links_of_a_listener_do_not_mix,
            accept_is_cancel_safe,
            dialling_where_nobody_listens_is_refused,
            an_address_in_use_is_said,
            a_dropped_listener_frees_its_address_and_keeps_its_links,
            each_end_sees_who_the_other_is,
        }
    };
    (@each $fixture:expr; $($check:ident,)*) => {
        $(
            #[::tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() {
                let limit = ::std::time::Duration::from_secs(60);
                let run = $crate::$check($fixture);
                ::tokio::time::timeout(limit, run).await.expect("the check ends in a minute");
            }
        )*
    };
}
