//! A job folder, signed and packed, ready to be sent.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use locule_identity::{Signer, Verifier};
use locule_job::{
    FolderSignError, JobError, JobFolder, Limits, PackError, Packing, UnpackError, VerifyError, is_signed,
    pack_file, sign_folder, unpack_file, verify_folder,
};
use tempfile::TempDir;

/// A packed job. Its file goes with it.
#[derive(Debug)]
pub struct Parcel {
    /// The job's name.
    pub name: String,
    /// The folder's name, by which the server finds the job in the archive.
    pub folder: String,
    /// Who had signed it before; nobody if the parcel was signed for this.
    pub signed_by: Vec<String>,
    /// Bytes of the archive.
    pub bytes: u64,
    file: PathBuf,
    _scratch: TempDir,
}

impl Parcel {
    /// Packs a job folder. One that nobody has signed is signed in the parcel, and stays as it is. Blocking.
    ///
    /// # Errors
    /// [`ParcelError`]; a folder whose signatures do not hold is not signed anew, for somebody changed it.
    pub fn pack(folder: &Path, signer: &dyn Signer, verifier: &dyn Verifier) -> Result<Self, ParcelError> {
        let job = JobFolder::read(folder)?;
        let scratch =
            tempfile::Builder::new().prefix("locule-job-").tempdir().map_err(ParcelError::Scratch)?;
        let file = scratch.path().join("job.zip");
        let pack = |folder: &Path, to: &Path| {
            pack_file(folder, &job.folder_name, to, Packing::Small, Limits::default().max_bytes)
        };
        let mut signed_by = Vec::new();
        if is_signed(folder) {
            let signers =
                verify_folder(folder, verifier, SystemTime::now()).map_err(ParcelError::Signature)?;
            signed_by.extend(signers.into_iter().map(|signer| signer.common_name));
            pack(folder, &file)?;
        } else {
            // A copy by way of an archive: its limits hold, and links are refused.
            let (plain, copy) = (scratch.path().join("plain.zip"), scratch.path().join("copy"));
            pack(folder, &plain)?;
            unpack_file(&plain, &copy, &Limits::default())?;
            let copied = copy.join(&job.folder_name);
            sign_folder(&copied, signer)?;
            pack(&copied, &file)?;
            fs::remove_dir_all(&copy).and_then(|()| fs::remove_file(&plain)).map_err(ParcelError::Scratch)?;
        }
        let bytes = file.metadata().map_err(ParcelError::Scratch)?.len();
        Ok(Self { name: job.meta.name, folder: job.folder_name, signed_by, bytes, file, _scratch: scratch })
    }

    /// Opens the archive.
    pub(crate) fn open(&self) -> io::Result<File> {
        File::open(&self.file)
    }
}

/// Why a job folder cannot be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParcelError {
    /// The folder is no job, or its meta has mistakes.
    #[error(transparent)]
    Job(#[from] JobError),
    /// It was changed after it was signed, or signed by somebody else's project.
    #[error("its signatures do not hold")]
    Signature(#[source] VerifyError),
    /// It cannot be signed.
    #[error("it cannot be signed")]
    Sign(#[from] FolderSignError),
    /// It cannot be packed.
    #[error("it cannot be packed")]
    Pack(#[from] PackError),
    /// It cannot be copied, to be signed.
    #[error("it cannot be copied")]
    Unpack(#[from] UnpackError),
    /// The system's folder for temporary files does not take it.
    #[error("the folder for temporary files does not take it")]
    Scratch(#[source] io::Error),
}
