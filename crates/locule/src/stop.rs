//! When to stop: a signal, or the end of standard input.

use std::io::Read as _;

use tokio::sync::oneshot;

use crate::exit::Code;

/// Resolves when somebody wants this process to end: SIGINT, SIGTERM, or, if `with_stdin`, the end of
/// standard input, which comes when the parent process ends.
pub(crate) async fn asked(with_stdin: bool) {
    let input_ended = async {
        if with_stdin {
            input_ended().await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = signalled() => {
            tracing::info!("stopping: signal; another one ends it at once");
            tokio::spawn(async {
                signalled().await;
                std::process::exit(Code::Interrupted as i32);
            });
        }
        () = input_ended => tracing::info!("stopping: standard input ended"),
    }
}

#[cfg(unix)]
async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (Ok(mut interrupt), Ok(mut terminate)) = signals else {
        tracing::warn!("signals cannot be caught");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

#[cfg(not(unix))]
async fn signalled() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending().await
    }
}

/// A thread of its own reads: one of the runtime's would hold the runtime up when it ends otherwise.
async fn input_ended() {
    let (ended, end) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        let mut ignored = [0; 256];
        while matches!(std::io::stdin().read(&mut ignored), Ok(1..)) {}
        drop(ended);
    });
    end.await.ok();
}
