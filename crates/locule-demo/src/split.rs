//! Who gets which rows.

use rand::SeedableRng as _;
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;
use thiserror::Error;

use crate::data::{DataSet, Rows};

/// Most sites the demo's data is split over.
pub const MAX_SITES: usize = 10;

/// Every site gets at least this many malignant and benign rows: 20 together.
const MIN_ROWS: [usize; 2] = [2, 18];

/// What each site has beyond the minimum, as a share of what the one before has.
const SHRINK: f64 = 0.25;

/// How much more of its preferred class a site has than it would by chance.
const TASTE: f64 = 5.0;

/// How many of the held-out rows there are, as a share of all.
const HELD_OUT: f64 = 0.2;

/// A data set divided for a federation: nobody trains on the held-out rows, and no row is in two places.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    /// One fifth of the rows, with the classes in the proportion of the whole; nobody trains on them.
    pub held_out: Rows,
    /// What each site has: uneven in size and in the share of the classes.
    pub sites: Vec<Rows>,
    /// What all sites have together, for the comparison that a federation cannot make.
    pub pooled: Rows,
}

impl DataSet {
    /// Divides the rows over `sites` sites; the same seed gives the same split.
    ///
    /// The first site is the largest and each further one much smaller, but none has fewer than 20 rows or
    /// only one class. The first, third, … see mostly benign cases, the others mostly malignant ones as far
    /// as the minimum allows. With three sites they have about 300, 120 and 40 rows.
    ///
    /// # Errors
    /// [`TooManySites`] unless there are 1 to [`MAX_SITES`].
    pub fn split(&self, seed: u64, sites: usize) -> Result<Split, TooManySites> {
        if !(1..=MAX_SITES).contains(&sites) {
            return Err(TooManySites { sites });
        }
        let rows = self.rows();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut held_out = Vec::new();
        let mut at_site = vec![Vec::new(); sites];

        for (label, min) in [false, true].into_iter().zip(MIN_ROWS) {
            let mut indices: Vec<usize> = rows
                .labels()
                .iter()
                .enumerate()
                .filter(|&(_, &l)| l == label)
                .map(|(index, _)| index)
                .collect();
            indices.shuffle(&mut rng);
            let kept = indices.split_off((indices.len() as f64 * HELD_OUT).round() as usize);
            held_out.append(&mut indices);

            let shares: Vec<f64> =
                (0..sites).map(|site| SHRINK.powi(site as i32) * taste(site, label)).collect();
            let mut rest = kept.as_slice();
            for (site, count) in apportion(kept.len(), &shares, min).into_iter().enumerate() {
                let (mine, others) = rest.split_at(count);
                at_site[site].extend_from_slice(mine);
                rest = others;
            }
        }
        // Row order carries nothing: neither the class nor the place in the source.
        held_out.shuffle(&mut rng);
        at_site.iter_mut().for_each(|site| site.shuffle(&mut rng));

        let pooled: Vec<usize> = at_site.iter().flatten().copied().collect();
        Ok(Split {
            held_out: rows.select(&held_out),
            sites: at_site.iter().map(|indices| rows.select(indices)).collect(),
            pooled: rows.select(&pooled),
        })
    }
}

/// How much a site prefers a class: the first has a surplus of benign cases, the second of malignant ones.
fn taste(site: usize, benign: bool) -> f64 {
    if site.is_multiple_of(2) == benign { TASTE } else { 1.0 }
}

/// Divides `total` in proportion to `shares`, each at least `min`; what rounding leaves goes to the first.
///
/// `min × shares.len()` must not exceed `total`.
fn apportion(total: usize, shares: &[f64], min: usize) -> Vec<usize> {
    let sum: f64 = shares.iter().sum();
    let spare = total - min * shares.len();
    let mut counts: Vec<usize> =
        shares.iter().map(|share| min + (spare as f64 * share / sum) as usize).collect();
    let given: usize = counts.iter().sum();
    counts[0] += total - given;
    counts
}

/// The demo splits its data over 1 to [`MAX_SITES`] sites.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the demo runs 1 to {MAX_SITES} sites, not {sites}")]
pub struct TooManySites {
    /// How many were asked for.
    pub sites: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_in_exactly_one_place() {
        let data = DataSet::wisconsin();
        for sites in 1..=MAX_SITES {
            let split = data.split(7, sites).unwrap();
            let mut seen: Vec<String> = split
                .held_out
                .iter()
                .chain(split.sites.iter().flat_map(Rows::iter))
                .map(|row| format!("{row:?}"))
                .collect();
            let mut all: Vec<String> = data.rows().iter().map(|row| format!("{row:?}")).collect();
            seen.sort();
            all.sort();
            assert_eq!(seen, all, "{sites} sites");
            assert_eq!(split.pooled.len(), split.sites.iter().map(Rows::len).sum::<usize>());
        }
    }

    #[test]
    fn every_site_has_twenty_rows_and_both_classes() {
        for seed in 0..20 {
            for sites in 1..=MAX_SITES {
                for rows in DataSet::wisconsin().split(seed, sites).unwrap().sites {
                    assert!(rows.len() >= 20 && rows.count(false) >= 2 && rows.count(true) >= 18);
                }
            }
        }
    }

    #[test]
    fn held_out_rows_keep_the_proportion_of_the_classes() {
        let split = DataSet::wisconsin().split(1, 3).unwrap();
        assert_eq!((split.held_out.count(false), split.held_out.count(true)), (42, 71));
    }

    #[test]
    fn sites_differ_in_size_and_in_classes() {
        let split = DataSet::wisconsin().split(1, 3).unwrap();
        let sizes: Vec<usize> = split.sites.iter().map(Rows::len).collect();
        assert!(sizes[0] > 2 * sizes[1] && sizes[1] > sizes[2], "{sizes:?}");
        let benign: Vec<f64> = split.sites.iter().map(|s| s.count(true) as f64 / s.len() as f64).collect();
        assert!(benign[0] - benign[1] > 0.2 && benign[2] - benign[1] > 0.2, "{benign:?}");
    }

    #[test]
    fn the_seed_decides_the_split() {
        let data = DataSet::wisconsin();
        assert_eq!(data.split(3, 4).unwrap(), data.split(3, 4).unwrap());
        assert_ne!(data.split(3, 4).unwrap(), data.split(4, 4).unwrap());
    }

    #[test]
    fn zero_or_eleven_sites_are_refused() {
        for sites in [0, 11] {
            assert_eq!(DataSet::wisconsin().split(1, sites).unwrap_err(), TooManySites { sites });
        }
    }
}
