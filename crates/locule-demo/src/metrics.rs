//! How good predictions are.

/// Area under the ROC curve: how often a row of class 1 scores above one of class 0; a tie counts half.
///
/// Scores may be on any scale. `None` when a class is absent or a score is not a number.
///
/// ```
/// assert_eq!(locule_demo::auc(&[0.1, 0.4, 0.35, 0.8], &[false, false, true, true]), Some(0.75));
/// ```
pub fn auc(scores: &[f64], labels: &[bool]) -> Option<f64> {
    let mut ranked: Vec<(f64, bool)> = scores.iter().copied().zip(labels.iter().copied()).collect();
    if ranked.iter().any(|(score, _)| score.is_nan()) {
        return None;
    }
    ranked.sort_by(|a, b| a.0.total_cmp(&b.0));

    let positives = ranked.iter().filter(|(_, label)| *label).count() as f64;
    let negatives = ranked.len() as f64 - positives;
    if positives == 0.0 || negatives == 0.0 {
        return None;
    }
    // Mann–Whitney: the sum of the ranks of class 1, where tied scores share the mean of their ranks.
    let mut rank_sum = 0.0;
    let mut below = 0;
    for tied in ranked.chunk_by(|a, b| a.0 == b.0) {
        let rank = below as f64 + (tied.len() as f64 + 1.0) / 2.0;
        rank_sum += rank * tied.iter().filter(|(_, label)| *label).count() as f64;
        below += tied.len();
    }
    Some((rank_sum - positives * (positives + 1.0) / 2.0) / (positives * negatives))
}

/// How a model does on rows that it was not trained on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judgement {
    /// Area under the ROC curve, 0 to 1; 0.5 when the rows have one class only.
    pub auc: f64,
    /// Share of rows on the right side of one half, 0 to 1.
    pub accuracy: f64,
    /// Mean negative log likelihood, in nats; ln 2 is a coin's.
    pub loss: f64,
}

impl Judgement {
    /// Of log odds against labels; all zero when there is no row.
    pub(crate) fn of(scores: &[f64], labels: &[bool]) -> Judgement {
        let rows = scores.len().max(1) as f64;
        let pairs = || scores.iter().zip(labels);
        let right = pairs().filter(|&(&score, &label)| (score > 0.0) == label).count();
        let loss: f64 = pairs().map(|(&score, &label)| crate::logistic::log_loss_of(score, label)).sum();
        Judgement {
            auc: auc(scores, labels).unwrap_or(0.5),
            accuracy: right as f64 / rows,
            loss: loss / rows,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_auc(scores: &[f64], labels: &[u8], expected: Option<f64>) {
        let labels: Vec<bool> = labels.iter().map(|&l| l == 1).collect();
        assert_eq!(auc(scores, &labels), expected);
    }

    #[test]
    fn auc_counts_pairs_in_the_right_order_and_ties_by_half() {
        check_auc(&[1.0, 2.0, 3.0, 4.0], &[0, 0, 1, 1], Some(1.0));
        check_auc(&[4.0, 3.0, 2.0, 1.0], &[0, 0, 1, 1], Some(0.0));
        check_auc(&[7.0, 7.0, 7.0, 7.0], &[0, 1, 0, 1], Some(0.5));
        check_auc(&[1.0, 2.0, 2.0, 3.0], &[0, 0, 1, 1], Some(0.875));
        check_auc(&[-0.0, 0.0], &[0, 1], Some(0.5));
        check_auc(&[f64::NEG_INFINITY, f64::INFINITY], &[0, 1], Some(1.0));
    }

    #[test]
    fn auc_needs_both_classes_and_numbers() {
        check_auc(&[], &[], None);
        check_auc(&[1.0, 2.0], &[1, 1], None);
        check_auc(&[1.0, f64::NAN], &[0, 1], None);
    }

    #[test]
    fn auc_agrees_with_counting_every_pair() {
        let scores: Vec<f64> = (0..60).map(|i| f64::from((i * 37 + 11) % 17)).collect();
        let labels: Vec<bool> = (0..60).map(|i| (i * 29) % 7 < 3).collect();
        let mut won = 0.0;
        let mut pairs = 0.0;
        for (a, _) in scores.iter().zip(&labels).filter(|(_, l)| **l) {
            for (b, _) in scores.iter().zip(&labels).filter(|(_, l)| !**l) {
                pairs += 1.0;
                won += if a > b {
                    1.0
                } else if a == b {
                    0.5
                } else {
                    0.0
                };
            }
        }
        assert!((auc(&scores, &labels).unwrap() - won / pairs).abs() < 1e-12);
    }

    #[test]
    fn a_judgement_states_accuracy_and_loss() {
        let judged = Judgement::of(&[2.0, -1.0, 0.5], &[true, false, false]);
        assert!((judged.accuracy - 2.0 / 3.0).abs() < 1e-15);
        let by_hand = (0.126_928_011_042_972_6 + 0.313_261_687_518_222_8 + 0.974_076_984_180_106_7) / 3.0;
        assert!((judged.loss - by_hand).abs() < 1e-12, "{}", judged.loss);
        assert_eq!(judged.auc, 1.0);
    }
}
