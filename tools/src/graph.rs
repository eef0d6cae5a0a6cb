//! Graphs, drawn: as DOT, and as SVG in layers.

use std::collections::BTreeMap;
use std::fmt::Write;

/// A node, and how it is.
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) label: String,
    pub(crate) color: &'static str,
}

/// A graph without circles. Edges lead from one place in `nodes` to another.
#[derive(Default)]
pub(crate) struct Drawing {
    pub(crate) nodes: Vec<Node>,
    pub(crate) edges: Vec<(usize, usize, bool)>,
}

const NODE_WIDTH: usize = 180;
const NODE_HEIGHT: usize = 36;
const GAP_X: usize = 60;
const GAP_Y: usize = 16;
const LABEL_LENGTH_MAX: usize = 24;

fn escaped_dot(text: &str) -> String {
    text.chars()
        .filter(|character| !character.is_control())
        .collect::<String>()
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
}

fn escaped_xml(text: &str) -> String {
    let text: String = text.chars().filter(|character| !character.is_control()).collect();
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

impl Drawing {
    /// Draws it for Graphviz. An edge that does not need success is dashed.
    pub(crate) fn dot(&self) -> String {
        let mut dot = "digraph {\n  rankdir=LR;\n  node [shape=box, style=filled];\n".to_owned();
        for (place, node) in self.nodes.iter().enumerate() {
            let _ = writeln!(
                dot,
                "  n{place} [label=\"{}\", fillcolor=\"{}\", tooltip=\"{}\"];",
                escaped_dot(&node.label),
                node.color,
                escaped_dot(&node.id)
            );
        }
        for (from, to, is_needed) in &self.edges {
            let style = if *is_needed { "" } else { " [style=dashed]" };
            let _ = writeln!(dot, "  n{from} -> n{to}{style};");
        }
        dot + "}"
    }

    /// Gives the layer of each node: one behind the last of those that lead to it.
    fn layers(&self) -> Vec<usize> {
        let mut layers = vec![0; self.nodes.len()];
        // A node is moved at most as often as there are nodes; of a circle, which should not be, the rest is left.
        for _ in 0..self.nodes.len() {
            let mut is_moved = false;
            for (from, to, _) in &self.edges {
                let behind = layers.get(*from).map_or(0, |layer| layer + 1);
                if let Some(layer) = layers.get_mut(*to).filter(|layer| **layer < behind) {
                    *layer = behind.min(self.nodes.len());
                    is_moved = true;
                }
            }
            if !is_moved {
                break;
            }
        }
        layers
    }

    /// Draws it as a picture.
    pub(crate) fn svg(&self) -> String {
        let layers = self.layers();
        let mut filled: BTreeMap<usize, usize> = BTreeMap::new();
        let places: Vec<(usize, usize)> = layers
            .iter()
            .map(|layer| {
                let row = filled.entry(*layer).or_default();
                let place = (layer * (NODE_WIDTH + GAP_X) + GAP_X / 2, *row * (NODE_HEIGHT + GAP_Y) + GAP_Y);
                *row += 1;
                place
            })
            .collect();
        let width = (filled.keys().max().copied().unwrap_or(0) + 1) * (NODE_WIDTH + GAP_X);
        let height = filled.values().max().copied().unwrap_or(0) * (NODE_HEIGHT + GAP_Y) + GAP_Y;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n"
        );
        for (from, to, is_needed) in &self.edges {
            let (Some((x1, y1)), Some((x2, y2))) = (places.get(*from), places.get(*to)) else { continue };
            let (x1, y1, y2) = (x1 + NODE_WIDTH, y1 + NODE_HEIGHT / 2, y2 + NODE_HEIGHT / 2);
            let bend = GAP_X / 2;
            let dashes = if *is_needed { "" } else { " stroke-dasharray=\"4 3\"" };
            let _ = writeln!(
                svg,
                "<path d=\"M{x1} {y1} C{} {y1} {} {y2} {x2} {y2}\" fill=\"none\" stroke=\"#666\"{dashes}/>",
                x1 + bend,
                x2.saturating_sub(bend)
            );
        }
        for (node, (x, y)) in self.nodes.iter().zip(&places) {
            let label: String = match node.label.chars().count() {
                count if count > LABEL_LENGTH_MAX => {
                    node.label.chars().take(LABEL_LENGTH_MAX - 1).chain(['\u{2026}']).collect()
                }
                _ => node.label.clone(),
            };
            let _ = writeln!(
                svg,
                "<g><title>{}</title><rect x=\"{x}\" y=\"{y}\" width=\"{NODE_WIDTH}\" height=\"{NODE_HEIGHT}\" rx=\"4\" fill=\"{}\" stroke=\"#333\"/><text x=\"{}\" y=\"{}\">{}</text></g>",
                escaped_xml(&node.id),
                node.color,
                x + 8,
                y + NODE_HEIGHT / 2 + 4,
                escaped_xml(&label)
            );
        }
        svg + "</svg>"
    }
}
