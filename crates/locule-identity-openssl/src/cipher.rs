use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use locule_identity::{
    ChainError, Cipher, ENVELOPE_LEN, Identity, OpenError, SealError, Signer, Usage, Verifier,
};
use openssl::encrypt::{Decrypter, Encrypter};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private, Public};
use openssl::rsa::Padding;
use openssl::symm;
use zeroize::Zeroizing;

use crate::pss;
use crate::{OpensslSigner, OpensslVerifier};

/// The one version of envelopes.
const VERSION: u8 = 1;
const NONCE_LEN: usize = 12;
const KEY_LEN: usize = 32;
const TAG_LEN: usize = 16;
/// Bytes of whatever an RSA key of 2,048 bits makes.
const RSA_LEN: usize = 256;
const WRAPPED: usize = 1 + NONCE_LEN;
const SIGNATURE: usize = WRAPPED + RSA_LEN;
const CIPHERTEXT: usize = SIGNATURE + RSA_LEN;

/// Envelopes under one key, after which another is wrapped. Random nonces would allow for 2³².
const MAX_USES: u32 = 1 << 20;
/// Keys that are remembered, each way.
const MAX_KEYS: usize = 1024;

/// Seals and opens with AES-256-GCM under keys that RSA wraps.
///
/// A key is wrapped once for a receiver and used for many envelopes, and once unwrapped it is remembered
/// with its sender, as stock peers do: of the asymmetric work, a signature for each envelope is what is left.
pub struct OpensslCipher {
    signer: OpensslSigner,
    verifier: OpensslVerifier,
    root_pem: Vec<u8>,
    /// Keys to seal with, by the receiver's certificate.
    sealing: Mutex<Keys<[u8; 32], Arc<SealKey>>>,
    /// Keys to open with, by the sender's certificate and the wrapped key.
    opening: Mutex<Keys<SenderKey, Arc<Key>>>,
}

type Key = Zeroizing<[u8; KEY_LEN]>;
type SenderKey = ([u8; 32], [u8; RSA_LEN]);

struct SealKey {
    key: Key,
    wrapped: [u8; RSA_LEN],
    uses: std::sync::atomic::AtomicU32,
}

impl OpensslCipher {
    /// A cipher of whoever holds `signer`, which trusts certificates under `root_pem`.
    ///
    /// # Errors
    /// [`ChainError::UnusableKey`] when the signer's key has not 2,048 bits; otherwise what is wrong with the
    /// root.
    pub fn new(signer: OpensslSigner, root_pem: &[u8]) -> Result<Self, ChainError> {
        check_key(signer.identity())?;
        Ok(Self {
            verifier: OpensslVerifier::new(root_pem)?,
            root_pem: root_pem.to_vec(),
            sealing: Mutex::default(),
            opening: Mutex::default(),
            signer,
        })
    }

    fn seal_key(&self, to: &Identity) -> Result<Arc<SealKey>, SealError> {
        let known = lock(&self.sealing).get(&to.fingerprint);
        let fresh =
            |key: &Arc<SealKey>| key.uses.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < MAX_USES;
        if let Some(key) = known.filter(fresh) {
            return Ok(key);
        }
        let public = PKey::public_key_from_der(&to.public_key).map_err(|_| SealError::UnusableKey)?;
        if public.size() != RSA_LEN {
            return Err(SealError::UnusableKey);
        }
        let made = Arc::new(SealKey::wrap(&public).map_err(refused)?);
        lock(&self.sealing).insert(to.fingerprint, Arc::clone(&made));
        Ok(made)
    }

    fn open_key(&self, from: &Identity, wrapped: [u8; RSA_LEN]) -> Result<Arc<Key>, OpenError> {
        let place = (from.fingerprint, wrapped);
        if let Some(key) = lock(&self.opening).get(&place) {
            return Ok(key);
        }
        let key = Arc::new(unwrap(self.signer.key(), &wrapped).map_err(|_| OpenError::Unreadable)?);
        lock(&self.opening).insert(place, Arc::clone(&key));
        Ok(key)
    }
}

impl Cipher for OpensslCipher {
    fn certificate_pem(&self) -> &[u8] {
        self.signer.certificate_pem()
    }

    fn root_pem(&self) -> &[u8] {
        &self.root_pem
    }

    fn identify(&self, chain_pem: &[u8], now: SystemTime) -> Result<Identity, ChainError> {
        // servers and sites seal alike
        let identity = match self.verifier.identify(chain_pem, Usage::Client, now) {
            Err(ChainError::WrongUsage(_)) => self.verifier.identify(chain_pem, Usage::Server, now),
            judged => judged,
        }?;
        check_key(&identity)?;
        Ok(identity)
    }

    fn seal(&self, to: &Identity, clear: &[u8]) -> Result<Vec<u8>, SealError> {
        let key = self.seal_key(to)?;
        let seal = || -> Result<Vec<u8>, ErrorStack> {
            let mut nonce = [0; NONCE_LEN];
            openssl::rand::rand_bytes(&mut nonce)?;
            let mut tag = [0; TAG_LEN];
            let aes = symm::Cipher::aes_256_gcm();
            let text =
                symm::encrypt_aead(aes, &key.key[..], Some(&nonce), &bound(&key.wrapped), clear, &mut tag)?;
            let said: [&[u8]; 5] = [&[VERSION], &nonce, &key.wrapped, &text, &tag];
            let signature = pss::sign(self.signer.key(), &said)?;
            let mut envelope = Vec::with_capacity(ENVELOPE_LEN + clear.len());
            for field in [&[VERSION], &nonce[..], &key.wrapped, &signature, &text, &tag] {
                envelope.extend_from_slice(field);
            }
            Ok(envelope)
        };
        seal().map_err(refused)
    }

    fn open(&self, from: &Identity, envelope: &[u8]) -> Result<Vec<u8>, OpenError> {
        let len = envelope.len();
        if len < ENVELOPE_LEN {
            return Err(OpenError::Short { len });
        }
        if envelope[0] != VERSION {
            return Err(OpenError::Version(envelope[0]));
        }
        let (head, signature) = (&envelope[..SIGNATURE], &envelope[SIGNATURE..CIPHERTEXT]);
        let (text, tag) = envelope[CIPHERTEXT..].split_at(len - CIPHERTEXT - TAG_LEN);
        let public = PKey::public_key_from_der(&from.public_key).map_err(|_| OpenError::Signature)?;
        pss::verify(&public, &[head, text, tag], signature).map_err(|_| OpenError::Signature)?;

        let wrapped: [u8; RSA_LEN] = head[WRAPPED..].try_into().map_err(|_| OpenError::Unreadable)?;
        let key = self.open_key(from, wrapped)?;
        let aes = symm::Cipher::aes_256_gcm();
        symm::decrypt_aead(aes, &key[..], Some(&head[1..WRAPPED]), &bound(&wrapped), text, tag)
            .map_err(|_| OpenError::Unreadable)
    }
}

impl fmt::Debug for OpensslCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpensslCipher").field("identity", self.signer.identity()).finish_non_exhaustive()
    }
}

impl SealKey {
    fn wrap(receiver: &PKey<Public>) -> Result<Self, ErrorStack> {
        let mut key = Key::default();
        openssl::rand::rand_bytes(&mut key[..])?;
        let mut oaep = Encrypter::new(receiver)?;
        oaep.set_rsa_padding(Padding::PKCS1_OAEP)?;
        oaep.set_rsa_oaep_md(MessageDigest::sha256())?;
        oaep.set_rsa_mgf1_md(MessageDigest::sha256())?;
        let mut wrapped = [0; RSA_LEN];
        oaep.encrypt(&key[..], &mut wrapped)?;
        Ok(Self { key, wrapped, uses: 1.into() })
    }
}

fn unwrap(own: &PKey<Private>, wrapped: &[u8]) -> Result<Key, ErrorStack> {
    let mut oaep = Decrypter::new(own)?;
    oaep.set_rsa_padding(Padding::PKCS1_OAEP)?;
    oaep.set_rsa_oaep_md(MessageDigest::sha256())?;
    oaep.set_rsa_mgf1_md(MessageDigest::sha256())?;
    let mut clear = Zeroizing::new([0; RSA_LEN]);
    let len = oaep.decrypt(wrapped, &mut clear[..])?;
    let mut key = Key::default();
    match clear.get(..len).filter(|found| found.len() == KEY_LEN) {
        Some(found) => key.copy_from_slice(found),
        None => return Err(ErrorStack::get()),
    }
    Ok(key)
}

/// What the ciphertext is bound to beside its nonce.
fn bound(wrapped: &[u8; RSA_LEN]) -> [u8; 1 + RSA_LEN] {
    let mut bound = [VERSION; 1 + RSA_LEN];
    bound[1..].copy_from_slice(wrapped);
    bound
}

fn check_key(identity: &Identity) -> Result<(), ChainError> {
    let unusable = |what: String| ChainError::UnusableKey(what);
    let key =
        PKey::public_key_from_der(&identity.public_key).map_err(|_| unusable("not readable".to_owned()))?;
    if key.size() == RSA_LEN { Ok(()) } else { Err(unusable(format!("{} bits instead of 2048", key.bits()))) }
}

fn refused(error: ErrorStack) -> SealError {
    SealError::Refused(Box::new(error))
}

/// Keys by whose they are; the oldest make room.
struct Keys<K, V> {
    by_place: HashMap<K, V>,
    in_order: VecDeque<K>,
}

impl<K: Eq + Hash + Clone, V: Clone> Keys<K, V> {
    fn get(&self, place: &K) -> Option<V> {
        self.by_place.get(place).cloned()
    }

    fn insert(&mut self, place: K, key: V) {
        if self.by_place.insert(place.clone(), key).is_some() {
            return;
        }
        self.in_order.push_back(place);
        if self.in_order.len() > MAX_KEYS
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.by_place.remove(&oldest);
        }
    }
}

impl<K, V> Default for Keys<K, V> {
    fn default() -> Self {
        Self { by_place: HashMap::new(), in_order: VecDeque::new() }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
