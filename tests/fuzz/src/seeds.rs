//! The golden vectors as inputs.

use std::sync::OnceLock;

use serde_json::Value as Json;

use crate::campaign::from_hex;

const FRAMES: [&str; 4] = [
    include_str!("../../vectors/sfm_frames.json"),
    include_str!("../../vectors/streaming.json"),
    include_str!("../../vectors/download.json"),
    include_str!("../../vectors/registration.json"),
];

/// Whole frames, file by file, sequence by sequence.
pub(crate) fn frames() -> &'static [Vec<Vec<u8>>] {
    static READ: OnceLock<Vec<Vec<Vec<u8>>>> = OnceLock::new();
    READ.get_or_init(read)
}

/// The frames of all sequences.
pub(crate) fn single() -> impl Iterator<Item = &'static Vec<u8>> {
    frames().iter().flatten()
}

fn read() -> Vec<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    for text in FRAMES {
        let file: Json = serde_json::from_str(text).expect("the vectors are JSON");
        if let Some(vectors) = file["vectors"].as_array() {
            found.push(vectors.iter().filter_map(frame).collect());
        }
        for sequence in file["sequences"].as_array().into_iter().flatten() {
            found.push(sequence["frames"].as_array().into_iter().flatten().filter_map(frame).collect());
        }
        for list in ["frames", "admin_session_first_frames"] {
            found.push(file[list].as_array().into_iter().flatten().filter_map(frame).collect());
        }
    }
    found.retain(|sequence: &Vec<_>| !sequence.is_empty());
    found
}

fn frame(vector: &Json) -> Option<Vec<u8>> {
    vector["hex"].as_str().map(from_hex)
}

/// Payloads of the object format.
pub(crate) fn payloads() -> Vec<Vec<u8>> {
    let text = include_str!("../../vectors/fobs.json");
    let file: Json = serde_json::from_str(text).expect("the vectors are JSON");
    let vectors = file["vectors"].as_array().into_iter().flatten().filter_map(frame);
    let mut found: Vec<_> = vectors.filter(|payload| payload.len() < 8000).collect();
    for frame in single() {
        let body = frame.get(16 + usize::from(header_len(frame))..).unwrap_or_default();
        if body.starts_with(&[100, 0]) {
            found.push(body.to_vec());
        }
    }
    found
}

pub(crate) fn header_len(frame: &[u8]) -> u16 {
    frame.get(4..6).map_or(0, |len| u16::from_be_bytes([len[0], len[1]]))
}
