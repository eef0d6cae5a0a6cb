//! What was made from what.

use larder::{Direction, Graph, ReadTxn, WalkLimits};

use super::{Asset, MadeState, Result, Runs};
use crate::place::found;

/// The label of the edges, from what is read to what is made.
pub(super) const MADE_FROM: u32 = 1;
const NODES_MAX: usize = 1_000_000;

/// An asset, and how far it is away.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Made {
    /// The asset.
    pub asset: Asset,
    /// How many steps it is away, at least.
    pub depth: u32,
}

/// An asset that is made from another one, and how it is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Impact {
    /// The asset.
    pub asset: Asset,
    /// How many steps it is away, at least.
    pub depth: u32,
    /// How the last making of it went; `None` if none is known.
    pub state: Option<MadeState>,
}

impl Runs {
    /// Gives what an asset was made from, and what that was made from, up to a depth: each once, the nearest first.
    ///
    /// # Errors
    /// [`Store`](super::RunsError::Store).
    pub fn upstream(&self, view: &ReadTxn, asset: &Asset, depth_max: u32) -> Result<Vec<Made>> {
        self.walk(view, asset, Direction::Up, depth_max)
    }

    /// Gives what is made from an asset, and what is made from that, up to a depth: each once, the nearest first.
    ///
    /// # Errors
    /// [`Store`](super::RunsError::Store).
    pub fn downstream(&self, view: &ReadTxn, asset: &Asset, depth_max: u32) -> Result<Vec<Made>> {
        self.walk(view, asset, Direction::Down, depth_max)
    }

    fn walk(&self, view: &ReadTxn, asset: &Asset, direction: Direction, depth_max: u32) -> Result<Vec<Made>> {
        let Some(rows) = found(view.collection(&self.lineage))? else { return Ok(Vec::new()) };
        let limits = WalkLimits { depth_max, nodes_max: NODES_MAX };
        let walked = Graph::over(rows).walk(MADE_FROM, [asset.node()], direction, limits)?;
        let made = |reached: &larder::Reached| {
            Some(Made { asset: Asset::of_node(&reached.node)?, depth: reached.depth })
        };
        Ok(walked.reached.iter().filter_map(made).collect())
    }

    /// Gives the edges that lead to an asset, or from it, as the two ends of each.
    ///
    /// # Errors
    /// [`Store`](super::RunsError::Store).
    pub fn edges(&self, view: &ReadTxn, asset: &Asset, direction: Direction) -> Result<Vec<(Asset, Asset)>> {
        let Some(rows) = found(view.collection(&self.lineage))? else { return Ok(Vec::new()) };
        let edges = Graph::over(rows).edges(MADE_FROM, asset.node(), direction)?;
        Ok(edges
            .iter()
            .filter_map(|edge| Some((Asset::of_node(&edge.from)?, Asset::of_node(&edge.to)?)))
            .collect())
    }

    /// Gives what is made from an asset, and how the last making of each went, from one view.
    ///
    /// # Errors
    /// [`Store`](super::RunsError::Store).
    pub fn impact(&self, view: &ReadTxn, asset: &Asset, depth_max: u32) -> Result<Vec<Impact>> {
        let below = self.downstream(view, asset, depth_max)?;
        below
            .into_iter()
            .map(|Made { asset, depth }| {
                let state = self.latest(view, &asset)?.map(|made| made.state);
                Ok(Impact { asset, depth, state })
            })
            .collect()
    }

    /// Tells whether something that an asset was made from has been made again since.
    ///
    /// # Errors
    /// [`Store`](super::RunsError::Store).
    pub fn is_stale(&self, view: &ReadTxn, asset: &Asset) -> Result<bool> {
        let Some(rows) = found(view.collection(&self.lineage))? else { return Ok(false) };
        let Some(values) = found(view.collection(&self.values))? else { return Ok(false) };
        for edge in Graph::over(rows).edges(MADE_FROM, asset.node(), Direction::Up)? {
            // What was made from what it was before is as new as can be.
            let Some(from) = Asset::of_node(&edge.from).filter(|from| from != asset) else { continue };
            let now = values.get(from.parts())?.and_then(|row| row.field("o"));
            if now != edge.field("o") {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
