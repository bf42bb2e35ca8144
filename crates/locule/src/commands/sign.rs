//! `locule sign`: signs a job folder with an administrator's key.

use anyhow::Context as _;
use locule_identity::Usage;
use locule_job::JobFolder;
use locule_kit::AdminKit;

use super::say;
use crate::arguments::Sign;
use crate::exit::{Code, Failure, OrExit as _};
use crate::wire;

/// Signs every file of a job folder in place; a folder that is no job is left as it is.
pub(crate) fn sign(arguments: &Sign) -> Result<(), Failure> {
    let folder = &arguments.job;
    JobFolder::read(folder).map_err(|error| Failure::from(error).about(folder))?;
    let kit = AdminKit::open(&arguments.kit)?;
    let (signer, _) = wire::credentials(&kit.files, Usage::Client)?;
    let signed = locule_job::sign_folder(folder, &*signer);
    signed.with_context(|| format!("cannot sign {}", folder.display())).or_exit(Code::CannotCreate)?;
    say(&format!("{} is signed by {}", folder.display(), signer.identity().common_name));
    Ok(())
}
