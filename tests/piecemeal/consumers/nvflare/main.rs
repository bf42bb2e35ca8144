//! A trial run of FedAvg with nvflare's arguments: two trainers that add, in this process.

use std::error::Error;

use locule_nvflare::{FedAvg, NPTrainer};
use locule_workflow::{LocalBoard, load_npz};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::temp_dir().join(format!("piecemeal-nvflare-{}", std::process::id()));
    let args = serde_json::json!({ "num_clients": 2, "num_rounds": 4, "persistor_id": "",
        "model": { "numpy_key": [1, 2] }, "aggregation_weights": { "a": 3 } });
    let mut workflow = FedAvg::new(serde_json::from_value(args)?)?;
    let mut board = LocalBoard::new(&dir);
    board.add_site("a", Box::new(NPTrainer::adding(1, dir.join("a"))));
    board.add_site("b", Box::new(NPTrainer::adding(5, dir.join("b"))));
    board.run(&mut workflow)?;

    let model = load_npz(&dir.join("models/global.npz"))?;
    let numbers = model.get("numpy_key").and_then(|array| array.as_array()).map(|array| array.to_f64());
    assert_eq!(numbers, Some(vec![9.0, 10.0]), "two a round");
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}
