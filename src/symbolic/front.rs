//! The Pareto front: the best expression of each complexity, and the rules that choose from it (docs/design.md §5).

use crate::choice;
use crate::formula::expression::Expression;

/// One expression of a front.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Sum of the weights of its nodes.
    pub complexity: u32,
    /// On all rows.
    pub loss: f64,
    /// −Δ ln loss / Δ complexity relative to the previous entry; 0 for the first.
    pub score: f64,
    /// The expression, with fitted constants.
    pub expression: Expression,
}

/// Entries with increasing complexity and strictly decreasing loss.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Front {
    /// The entries.
    pub entries: Vec<Entry>,
    /// Their losses on rows that the search did not see; empty if there are none.
    pub validation: Vec<f64>,
    /// What [`Select::Shortest`] uses; without it that rule is [`Select::Best`].
    pub description: Option<DescriptionLength>,
    /// The choice of each rule, in the order of [`Select::ALL`], where it depends on more than the losses here: the law
    /// of a component that shares a part with others is chosen together with theirs. The entries are then those of all
    /// components together, even where one is no better for this component than a simpler one.
    pub shared: Option<[Option<usize>; Select::ALL.len()]>,
}

/// What is needed to weigh the losses of a front against the length of formulas.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DescriptionLength {
    /// Rows with a nonzero weight.
    pub rows: usize,
    /// The power of residuals in the loss: 1 or 2.
    pub power: f64,
    /// The loss caused by rounding of the data: anything below counts the same.
    pub floor: f64,
    /// Number of operators and variables that a node can be.
    pub symbols: usize,
}

impl DescriptionLength {
    /// Nats needed to write an entry and what it leaves of the target: n ln(residual) for exponential or normal
    /// residuals, ln(symbols) for a node and ½ ln n for a constant (minimum description length; as in Bartlett et al.
    /// 2023, arXiv 2211.11461, without the terms for the curvature of constants).
    fn of(&self, entry: &Entry) -> f64 {
        let rows = self.rows as f64;
        let residuals = rows * entry.loss.max(self.floor).max(SMALLEST_LOSS).ln() / self.power;
        let nodes = f64::from(entry.complexity) * (self.symbols as f64).ln();
        residuals + nodes + 0.5 * rows.ln() * entry.expression.constants().len() as f64
    }
}

choice! {
    /// Rule that chooses the law from a front.
    pub enum Select {
        /// The shortest description of formula and residuals: what noise and number of rows bear.
        Shortest = "shortest",
        /// The largest score among losses of at most 1.5 times the smallest.
        Best = "best",
        /// The largest score (the rule of the paper).
        Score = "score",
        /// The smallest loss.
        Accuracy = "accuracy",
    }
}

impl Select {
    /// The rules, in the order of their tables.
    pub const ALL: [Select; 4] = [Select::Shortest, Select::Score, Select::Best, Select::Accuracy];
}

/// A loss of 0 counts as this, so that scores stay finite.
const SMALLEST_LOSS: f64 = f64::MIN_POSITIVE;

impl Front {
    /// The front of expressions given with their complexities and losses, in any order.
    pub fn new(mut candidates: Vec<(u32, f64, Expression)>) -> Self {
        candidates.retain(|c| c.1.is_finite());
        candidates.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let mut entries: Vec<Entry> = Vec::new();
        for (complexity, loss, expression) in candidates {
            let score = match entries.last() {
                None => 0.0,
                Some(last) if loss >= last.loss || complexity == last.complexity => continue,
                Some(last) => {
                    let ratio = loss.max(SMALLEST_LOSS).ln() - last.loss.max(SMALLEST_LOSS).ln();
                    -ratio / f64::from(complexity - last.complexity)
                }
            };
            entries.push(Entry { complexity, loss, score, expression });
        }
        Front { entries, ..Front::default() }
    }

    /// The entry that a rule chooses; None for an empty front. If there are losses on unseen rows, the rule uses those,
    /// and entries that do not lower them are not candidates.
    pub fn select(&self, rule: Select) -> Option<usize> {
        if let Some(shared) = &self.shared {
            return Select::ALL.iter().zip(shared).find(|(r, _)| **r == rule)?.1.to_owned();
        }
        if self.validation.is_empty() {
            return choose(&self.entries, rule, self.description.as_ref());
        }
        let unseen =
            |(entry, &loss): (&Entry, &f64)| (entry.complexity, loss, entry.expression.clone());
        let unseen = Front::new(self.entries.iter().zip(&self.validation).map(unseen).collect());
        // Unseen rows already account for noise.
        let chosen = &unseen.entries[choose(&unseen.entries, rule, None)?];
        self.entries.iter().position(|entry| entry.complexity == chosen.complexity)
    }
}

fn choose(
    entries: &[Entry],
    rule: Select,
    description: Option<&DescriptionLength>,
) -> Option<usize> {
    let last = entries.len().checked_sub(1)?;
    let limit = match (rule, description) {
        (Select::Shortest, Some(description)) => {
            let length = |&i: &usize| description.of(&entries[i]);
            return (0..=last).min_by(|a, b| length(a).total_cmp(&length(b)));
        }
        (Select::Accuracy, _) => return Some(last),
        (Select::Score, _) => f64::INFINITY,
        (Select::Best | Select::Shortest, _) => 1.5 * entries[last].loss,
    };
    // The first of equals: the simplest.
    let candidates = (0..=last).filter(|&i| entries[i].loss <= limit);
    candidates.reduce(|best, i| if entries[i].score > entries[best].score { i } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn front(points: &[(u32, f64)]) -> Front {
        let e = Expression::variable(0);
        Front::new(points.iter().map(|&(c, loss)| (c, loss, e.clone())).collect())
    }

    /// The two fronts of table 4 of the paper, complexities as printed.
    #[test]
    fn fronts_of_the_paper() {
        let inverse = front(&[
            (1, 103.3),
            (2, 96.7),
            (3, 93.1),
            (5, 85.7),
            (6, 68.3),
            (8, 31.2),
            (10, 7.93),
            (12, 6.96),
            (14, 2.48),
            (16, 0.466),
            (18, 0.42),
            (20, 0.38),
            (22, 0.378),
        ]);
        let complexity =
            |front: &Front, rule| front.entries[front.select(rule).unwrap()].complexity;
        assert_eq!(complexity(&inverse, Select::Score), 16);
        assert_eq!(complexity(&inverse, Select::Best), 16);
        assert_eq!(complexity(&inverse, Select::Accuracy), 22);
        let chosen = &inverse.entries[inverse.select(Select::Score).unwrap()];
        assert!((chosen.score - 0.836).abs() < 5e-4, "{}", chosen.score);
        let square = front(&[
            (1, 1570.1),
            (3, 1559.0),
            (5, 1551.3),
            (6, 1520.9),
            (8, 913.8),
            (12, 160.3),
            (14, 131.4),
            (16, 69.4),
            (18, 42.3),
            (20, 18.40),
            (22, 17.95),
        ]);
        assert_eq!(complexity(&square, Select::Score), 12);
        assert_eq!(complexity(&square, Select::Best), 20);
        assert_eq!(complexity(&square, Select::Accuracy), 22);
        let score = |c| square.entries.iter().find(|e| e.complexity == c).unwrap().score;
        assert!((score(12) - 0.435).abs() < 5e-4 && (score(20) - 0.416).abs() < 5e-4);
    }

    #[test]
    fn unseen_rows_choose() {
        let mut front = front(&[(1, 8.0), (3, 4.0), (5, 0.1), (9, 0.01), (11, 0.005)]);
        assert_eq!(front.select(Select::Accuracy), Some(4));
        front.validation = vec![8.0, 4.0, 0.1, 0.5, 0.2];
        for rule in Select::ALL {
            assert_eq!(front.select(rule), Some(2), "{rule:?}");
        }
        front.validation = vec![f64::INFINITY; 5];
        assert_eq!(front.select(Select::Best), None);
    }

    #[test]
    fn only_improvements_stay() {
        let front = front(&[(3, 1.0), (1, 2.0), (4, 1.0), (5, 0.0), (3, 1.5), (7, f64::INFINITY)]);
        let kept: Vec<u32> = front.entries.iter().map(|e| e.complexity).collect();
        assert_eq!(kept, [1, 3, 5]);
        assert!(front.entries.iter().all(|e| e.score.is_finite()));
        assert_eq!(Front::default().select(Select::Best), None);
    }
}
