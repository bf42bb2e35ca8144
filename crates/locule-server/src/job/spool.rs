//! Where large results are while they arrive, so that they are not all in memory.

use std::path::{Path, PathBuf};

use locule_cell::Spools;
use locule_journal::Spool;
use locule_protocol::SubmitUpdate;
use locule_store::FileSpool;

/// Results with more bytes than this are in a file while they arrive.
const SMALL: u64 = 2 << 20;

/// Where results go while they arrive: large ones into files without a name in this folder.
pub(super) fn spools(run_dir: PathBuf) -> Spools {
    Spools::new(move |channel, topic, len| {
        let is_result = (channel, topic) == (SubmitUpdate::CHANNEL, SubmitUpdate::TOPIC);
        let is_large = len > SMALL || len == 0;
        if is_result && is_large { open(&run_dir) } else { None }
    })
}

/// A file without a name in this folder; none where there can be none.
pub(super) fn open(folder: &Path) -> Option<Box<dyn Spool>> {
    match FileSpool::in_folder(folder) {
        Ok(spool) => Some(Box::new(spool)),
        Err(error) => {
            tracing::warn!(folder = %folder.display(), %error, "a result goes through memory");
            None
        }
    }
}
