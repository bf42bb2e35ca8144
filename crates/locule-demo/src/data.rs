//! Labelled rows, the data set, and its CSV form.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

/// The data set as its source distributes it; see `data/PROVENANCE.md`.
const WDBC: &str = include_str!("../data/wdbc.csv");

/// Name of the last column of a site's file.
const LABEL: &str = "label";

/// More than any file of this demo; a larger one is refused before it is read. In bytes.
const MAX_FILE_LEN: u64 = 64 << 20;

/// Rows of equal width, each with a label: `true` is class 1, here *benign*.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    columns: Arc<[String]>,
    values: Vec<f64>,
    labels: Vec<bool>,
}

impl Rows {
    /// No rows yet, of the named feature columns.
    pub fn new(columns: impl IntoIterator<Item = impl Into<String>>) -> Rows {
        Rows {
            columns: columns.into_iter().map(Into::into).collect(),
            values: Vec::new(),
            labels: Vec::new(),
        }
    }

    /// Adds one row.
    ///
    /// # Errors
    /// [`WrongWidth`] when `features` does not have one value per column; nothing is added.
    pub fn push(&mut self, features: &[f64], label: bool) -> Result<(), WrongWidth> {
        if features.len() != self.width() {
            return Err(WrongWidth { expected: self.width(), found: features.len() });
        }
        self.values.extend_from_slice(features);
        self.labels.push(label);
        Ok(())
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Number of feature columns.
    pub fn width(&self) -> usize {
        self.columns.len()
    }

    /// Names of the feature columns.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The labels, in row order.
    pub fn labels(&self) -> &[bool] {
        &self.labels
    }

    /// How many rows have this label.
    pub fn count(&self, label: bool) -> usize {
        self.labels.iter().filter(|&&l| l == label).count()
    }

    /// The features of the row at `index`, or an empty slice when there is none.
    pub fn features(&self, index: usize) -> &[f64] {
        let start = index.saturating_mul(self.width());
        self.values.get(start..start.saturating_add(self.width())).unwrap_or_default()
    }

    /// Every row with its label, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[f64], bool)> {
        self.labels.iter().enumerate().map(|(index, &label)| (self.features(index), label))
    }

    /// The rows at these indices, in the order given; an index out of range is left out.
    pub(crate) fn select(&self, indices: &[usize]) -> Rows {
        let mut picked = self.without_rows();
        for &index in indices {
            if let Some(&label) = self.labels.get(index) {
                picked.values.extend_from_slice(self.features(index));
                picked.labels.push(label);
            }
        }
        picked
    }

    fn without_rows(&self) -> Rows {
        Rows { columns: self.columns.clone(), values: Vec::new(), labels: Vec::new() }
    }

    /// Writes `path`: a line of column names ending in `label`, then one line a row.
    ///
    /// Numbers are written so that reading gives back the same bits. The file is readable by its owner
    /// only (on Unix), since it stands for patients' data.
    ///
    /// # Errors
    /// [`WriteRowsError`] names the file.
    pub fn write_csv(&self, path: &Path) -> Result<(), WriteRowsError> {
        let write = || -> std::io::Result<()> {
            let mut file = BufWriter::new(create_private(path)?);
            for column in self.columns.iter() {
                write!(file, "{column},")?;
            }
            writeln!(file, "{LABEL}")?;
            for (features, label) in self.iter() {
                for value in features {
                    write!(file, "{value},")?;
                }
                writeln!(file, "{}", u8::from(label))?;
            }
            file.flush()
        };
        write().map_err(|source| WriteRowsError { path: path.to_owned(), source })
    }

    /// Reads a file of the form [`Rows::write_csv`] writes.
    ///
    /// # Errors
    /// [`ReadRowsError`] names the file, and the line and column of what is wrong in it.
    pub fn read_csv(path: &Path) -> Result<Rows, ReadRowsError> {
        let unreadable = |source| ReadRowsError::Unreadable { path: path.to_owned(), source };
        let len = fs::metadata(path).map_err(unreadable)?.len();
        if len > MAX_FILE_LEN {
            return Err(ReadRowsError::TooLarge { path: path.to_owned(), len, max: MAX_FILE_LEN });
        }
        Rows::parse(path, &fs::read_to_string(path).map_err(unreadable)?)
    }

    fn parse(path: &Path, text: &str) -> Result<Rows, ReadRowsError> {
        let mut reader =
            csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
        let mut records = reader.records();
        let at = |line: u64, reason: String| ReadRowsError::Malformed { path: path.to_owned(), line, reason };

        let header = match records.next() {
            Some(header) => header.map_err(|error| at(line_of(&error), "not a line of text".to_owned()))?,
            None => return Err(at(1, "the file is empty".to_owned())),
        };
        let width = header.len().saturating_sub(1);
        if width == 0 || header.get(width) != Some(LABEL) {
            return Err(at(1, format!("expected column names of which the last is `{LABEL}`")));
        }

        let mut rows = Rows::new(header.iter().take(width));
        let mut features = Vec::with_capacity(width);
        for record in records {
            let record = record.map_err(|error| at(line_of(&error), "not a line of text".to_owned()))?;
            let line = record.position().map_or(0, csv::Position::line);
            if record.len() != width + 1 {
                return Err(at(line, format!("expected {} values, found {}", width + 1, record.len())));
            }
            features.clear();
            for (column, field) in rows.columns.iter().zip(record.iter()) {
                match field.trim().parse::<f64>() {
                    Ok(value) if value.is_finite() => features.push(value),
                    Ok(_) | Err(_) => {
                        return Err(at(
                            line,
                            format!("`{}` in column `{column}` is not a finite number", clip(field)),
                        ));
                    }
                }
            }
            let label = match record.get(width).map(str::trim) {
                Some("0") => false,
                Some("1") => true,
                other => {
                    return Err(at(
                        line,
                        format!("label `{}` is neither 0 nor 1", clip(other.unwrap_or_default())),
                    ));
                }
            };
            rows.push(&features, label).map_err(|error| at(line, error.to_string()))?;
        }
        if rows.is_empty() {
            return Err(at(1, "the file has column names but no rows".to_owned()));
        }
        Ok(rows)
    }
}

/// A data set whose rows this binary carries.
#[derive(Debug, Clone, PartialEq)]
pub struct DataSet {
    rows: Rows,
}

impl DataSet {
    /// Wisconsin Diagnostic Breast Cancer: 569 patients, 30 features, 212 malignant and 357 benign.
    pub fn wisconsin() -> DataSet {
        let mut rows = Rows::new(wisconsin_columns());
        for line in WDBC.lines().skip(1) {
            let numbers: Vec<f64> = line.split(',').filter_map(|number| number.parse().ok()).collect();
            if let Some((&label, features)) = numbers.split_last() {
                rows.push(features, label == 1.0).expect("the embedded file has 30 features in every row");
            }
        }
        DataSet { rows }
    }

    /// Every row, in the order of the source.
    pub fn rows(&self) -> &Rows {
        &self.rows
    }
}

/// Ten properties of the cell nuclei, each as mean, standard error and worst value.
fn wisconsin_columns() -> impl Iterator<Item = String> {
    const PROPERTIES: [&str; 10] = [
        "radius",
        "texture",
        "perimeter",
        "area",
        "smoothness",
        "compactness",
        "concavity",
        "concave_points",
        "symmetry",
        "fractal_dimension",
    ];
    ["mean", "error", "worst"]
        .into_iter()
        .flat_map(|kind| PROPERTIES.map(|property| format!("{kind}_{property}")))
}

fn create_private(path: &Path) -> std::io::Result<File> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn line_of(error: &csv::Error) -> u64 {
    error.position().map_or(0, csv::Position::line)
}

/// A field as an error may show it: one line, at most 40 characters.
fn clip(field: &str) -> String {
    field.chars().take(40).flat_map(char::escape_debug).collect()
}

/// A row does not have one value per column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("expected {expected} features, found {found}")]
pub struct WrongWidth {
    /// Number of feature columns.
    pub expected: usize,
    /// Number of values given.
    pub found: usize,
}

/// Rows were not written.
#[derive(Debug, Error)]
#[error("cannot write {}", path.display())]
pub struct WriteRowsError {
    /// The file.
    pub path: PathBuf,
    /// What the file system said.
    #[source]
    pub source: std::io::Error,
}

/// Rows were not read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadRowsError {
    /// The file is missing, cannot be opened, or is not UTF-8.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is larger than this demo reads.
    #[error("{} has {len} bytes; at most {max} are read", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        len: u64,
        /// The limit in bytes.
        max: u64,
    },
    /// The text is not a table of numbers with labels.
    #[error("{}:{line}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// What is wrong there.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_data_is_what_its_first_line_says() {
        let data = DataSet::wisconsin();
        assert_eq!(WDBC.lines().next(), Some("569,30,malignant,benign"));
        assert_eq!(data.rows().len(), 569);
        assert_eq!(data.rows().width(), 30);
        assert_eq!((data.rows().count(false), data.rows().count(true)), (212, 357));
        assert_eq!(data.rows().columns()[7], "mean_concave_points");
        assert_eq!(data.rows().columns()[29], "worst_fractal_dimension");
        assert_eq!(data.rows().features(0)[..3], [17.99, 10.38, 122.8]);
        assert_eq!(data.rows().features(0)[29], 0.1189);
        assert_eq!(data.rows().features(569), [0.0; 0]);
    }

    #[test]
    fn written_rows_read_back_bit_for_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.csv");
        let rows = DataSet::wisconsin().rows;
        rows.write_csv(&path).unwrap();
        assert_eq!(Rows::read_csv(&path).unwrap(), rows);
    }

    #[cfg(unix)]
    #[test]
    fn a_sites_rows_are_readable_by_their_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.csv");
        DataSet::wisconsin().rows.write_csv(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[track_caller]
    fn check_error(text: &str, expected: &str) {
        assert_eq!(Rows::parse(Path::new("kit/data.csv"), text).unwrap_err().to_string(), expected);
    }

    #[test]
    fn a_malformed_file_is_named_with_its_line() {
        check_error("", "kit/data.csv:1: the file is empty");
        check_error("a,b\n", "kit/data.csv:1: expected column names of which the last is `label`");
        check_error("label\n1\n", "kit/data.csv:1: expected column names of which the last is `label`");
        check_error("a,label\n", "kit/data.csv:1: the file has column names but no rows");
        check_error("a,b,label\n1,2,0\n1,0\n", "kit/data.csv:3: expected 3 values, found 2");
        check_error("a,b,label\n1,x,0\n", "kit/data.csv:2: `x` in column `b` is not a finite number");
        check_error("a,b,label\n1,NaN,0\n", "kit/data.csv:2: `NaN` in column `b` is not a finite number");
        check_error("a,label\n1,2\n", "kit/data.csv:2: label `2` is neither 0 nor 1");
        check_error(
            "a,label\n\"\u{7}\",2\n",
            "kit/data.csv:2: `\\u{7}` in column `a` is not a finite number",
        );
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Rows::read_csv(Path::new("no/such/data.csv")).unwrap_err();
        assert_eq!(error.to_string(), "cannot read no/such/data.csv");
    }
}
