//! Makes a component out of its text form: `assemble comp_auth.wat comp_auth.wasm`.

use std::error::Error;
use std::fs;

fn main() -> Result<(), Box<dyn Error>> {
    let files: Vec<String> = std::env::args().skip(1).collect();
    let [text, binary] = files.as_slice() else { return Err("usage: assemble TEXT.wat BINARY.wasm".into()) };
    fs::write(binary, wat::parse_file(text)?)?;
    Ok(())
}
