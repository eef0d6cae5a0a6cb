//! Graphs: edges both ways, no circles, and ways along them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use larder::{
    Direction, ErrorKind, Graph, LongestPath, Part, RowDraft, Session, WalkLimits, WriteTxn, graph_definition,
};
use larder_tests::{Random, in_memory, verified};

const LABEL: &str = "before";

fn store() -> (larder::Larder, Session) {
    let larder = in_memory();
    let ana = larder.session("ana").unwrap();
    let _ = ana.write(|txn| txn.define_collection("g", &graph_definition())).unwrap();
    (larder, ana)
}

fn connect(txn: &mut WriteTxn<'_>, from: u32, to: u32) -> larder::Result<bool> {
    Graph::over(txn.collection("g")?).connect_acyclic(LABEL, from, to, RowDraft::default())
}

fn nodes(parts: &[Part]) -> Vec<u32> {
    let node = |part: &Part| match part {
        Part::Integer(node) => u32::try_from(*node).unwrap(),
        other => panic!("{other:?}"),
    };
    parts.iter().map(node).collect()
}

fn reached(ana: &Session, start: u32, direction: Direction) -> Vec<(u32, u32)> {
    let view = ana.snapshot().unwrap();
    let mut graph = Graph::over(view.collection("g").unwrap());
    let walked = graph.walk(LABEL, [start], direction, WalkLimits::default()).unwrap();
    assert!(!walked.is_cut);
    walked
        .reached
        .iter()
        .map(|reached| (nodes(std::slice::from_ref(&reached.node))[0], reached.depth))
        .collect()
}

/// S2-11.
#[test]
fn s2_11_an_edge_that_closes_a_circle_is_refused_with_the_way() {
    let (larder, ana) = store();
    let put = |from, to| ana.write(|txn| connect(txn, from, to)).map(|receipt| receipt.value);
    assert!(!put(1, 2).unwrap());
    assert!(!put(2, 3).unwrap());
    let round = put(3, 1).unwrap_err();
    let path = "Integer(1) -> Integer(2) -> Integer(3) -> Integer(1)".to_owned();
    assert_eq!(*round.kind(), ErrorKind::DependencyCycle { path });
    assert!(matches!(put(7, 7).unwrap_err().kind(), ErrorKind::DependencyCycle { .. }));
    assert!(put(1, 2).unwrap(), "an edge between two nodes is there once");
    // A diamond is no circle.
    for (from, to) in [(1, 4), (4, 3), (2, 5), (4, 5)] {
        assert!(!put(from, to).unwrap());
    }
    assert_eq!(reached(&ana, 1, Direction::Down), [(2, 1), (4, 1), (3, 2), (5, 2)]);
    assert_eq!(reached(&ana, 5, Direction::Up), [(2, 1), (4, 1), (1, 2)]);
    // A chain of 1 000: what would close it is refused, and the refusal names all of it, as far as that is of use.
    ana.write(|txn| (1_000..2_000).try_for_each(|node| connect(txn, node, node + 1).map(drop))).unwrap();
    let round = put(2_000, 1_000).unwrap_err().to_string();
    assert!(round.contains("Integer(1000) -> Integer(1001)") && round.contains("952 more"), "{round}");
    verified(&larder);
}

#[test]
fn an_edge_has_fields_and_goes_with_its_node() {
    let (larder, ana) = store();
    ana.write(|txn| {
        let mut graph = Graph::over(txn.collection("g")?);
        graph.connect(LABEL, "a", vec![Part::from("b"), Part::Nil], RowDraft::new("why").field("w", 3))?;
        graph.connect(LABEL, "a", "c", RowDraft::default())?;
        graph.connect(LABEL, "c", "d", RowDraft::default())?;
        graph.connect("other", "a", "c", RowDraft::default())
    })
    .unwrap();
    let node = Part::List(vec![Part::from("b"), Part::Nil]);
    let view = ana.snapshot().unwrap();
    let mut graph = Graph::over(view.collection("g").unwrap());
    let edge = graph.edge(LABEL, "a", node.clone()).unwrap().unwrap();
    assert_eq!((edge.field("w"), &edge.row().value()[..]), (Some(Part::from(3)), &b"why"[..]));
    assert_eq!(graph.edges(LABEL, node, Direction::Up).unwrap(), [edge]);
    assert_eq!(graph.edges(LABEL, "a", Direction::Down).unwrap().len(), 2);
    assert!(graph.edge(LABEL, "c", "a").unwrap().is_none());
    drop(graph);
    let removed = ana.write(|txn| Graph::over(txn.collection("g")?).remove_node(LABEL, "c")).unwrap().value;
    assert_eq!(removed, 2, "the other label's edge stays");
    let view = ana.snapshot().unwrap();
    assert_eq!(view.collection("g").unwrap().total().unwrap().count, 2);
    verified(&larder);
}

#[test]
fn a_walk_says_when_there_was_more_than_it_was_let_see() {
    let (_larder, ana) = store();
    ana.write(|txn| (0..10).try_for_each(|node| connect(txn, node, node + 1).map(drop))).unwrap();
    let view = ana.snapshot().unwrap();
    let mut graph = Graph::over(view.collection("g").unwrap());
    for (depth_max, nodes_max, count, is_cut) in
        [(10, 100, 10, false), (9, 100, 9, true), (100, 10, 10, false), (100, 4, 4, true), (0, 0, 0, true)]
    {
        let limits = WalkLimits { depth_max, nodes_max };
        let walked = graph.walk(LABEL, [0], Direction::Down, limits).unwrap();
        assert_eq!((walked.reached.len(), walked.is_cut), (count, is_cut), "{limits:?}");
    }
    let too_large = graph.topological_order(LABEL, [0], 10).unwrap_err();
    assert_eq!(*too_large.kind(), ErrorKind::CascadeTooLarge { limit: 10 });
}

/// Every way through a small graph, tried.
fn longest_by_trying(children: &BTreeMap<u32, BTreeSet<u32>>, weights: &[u64], node: u32) -> u64 {
    let below = children.get(&node).into_iter().flatten();
    let longest = below.map(|child| longest_by_trying(children, weights, *child)).max().unwrap_or(0);
    longest + weights[node as usize]
}

/// S2-35, and the walks, against what a few lines say who do not know of rows.
#[test]
fn s2_35_orders_and_longest_paths_are_those_of_a_model() {
    let mut random = Random::new(35);
    for _ in 0..100 {
        let (larder, ana) = store();
        let count = 2 + random.below(11) as u32;
        let mut children: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        ana.write(|txn| {
            for _ in 0..random.below(30) {
                let (from, to) = (random.below(count as usize) as u32, random.below(count as usize) as u32);
                let was = children.get(&from).is_some_and(|children| children.contains(&to));
                let closes = from == to || is_below(&children, to, from);
                match connect(txn, from, to) {
                    Ok(again) => {
                        assert!(!closes);
                        assert_eq!(again, was);
                        children.entry(from).or_default().insert(to);
                    }
                    Err(error) => {
                        assert!(
                            matches!(error.kind(), ErrorKind::DependencyCycle { .. }) && closes,
                            "{error}"
                        );
                    }
                }
            }
            Ok(())
        })
        .unwrap();
        let weights: Vec<u64> = (0..count).map(|_| random.below(50) as u64).collect();
        let view = ana.snapshot().unwrap();
        let mut graph = Graph::over(view.collection("g").unwrap());
        let order = nodes(&graph.topological_order(LABEL, 0..count, 100).unwrap());
        assert_eq!(order.iter().collect::<BTreeSet<_>>().len(), count as usize);
        let place = |node: &u32| order.iter().position(|other| other == node);
        for (from, tos) in &children {
            assert!(tos.iter().all(|to| place(from) < place(to)), "{order:?} {children:?}");
        }
        let weight = |node: &Part| Ok(weights[nodes(std::slice::from_ref(node))[0] as usize]);
        let LongestPath { nodes: way, length, .. } =
            graph.longest_path(LABEL, 0..count, 100, weight).unwrap();
        let way = nodes(&way);
        let longest = (0..count).map(|node| longest_by_trying(&children, &weights, node)).max();
        assert_eq!(Some(length), longest);
        assert_eq!(way.iter().map(|node| weights[*node as usize]).sum::<u64>(), length);
        assert!(way.windows(2).all(|pair| children[&pair[0]].contains(&pair[1])));
        for node in 0..count {
            let down = reached(&ana, node, Direction::Down);
            assert!(down.iter().all(|(other, _)| is_below(&children, node, *other)), "nothing else");
            assert_eq!(down.len(), (0..count).filter(|other| is_below(&children, node, *other)).count());
            let up = reached(&ana, node, Direction::Up);
            assert_eq!(up.len(), (0..count).filter(|other| is_below(&children, *other, node)).count());
        }
        verified(&larder);
    }
}

fn is_below(children: &BTreeMap<u32, BTreeSet<u32>>, start: u32, node: u32) -> bool {
    let (mut seen, mut ahead) = (BTreeSet::new(), VecDeque::from([start]));
    while let Some(at) = ahead.pop_front() {
        for child in children.get(&at).into_iter().flatten() {
            if seen.insert(*child) {
                ahead.push_back(*child);
            }
        }
    }
    seen.contains(&node)
}

/// A circle that was allowed is found, and named, by what needs that there is none.
#[test]
fn an_order_of_a_circle_is_refused_with_the_circle() {
    let (_larder, ana) = store();
    ana.write(|txn| {
        let mut graph = Graph::over(txn.collection("g")?);
        for (from, to) in [(0, 1), (1, 2), (2, 3), (3, 1), (3, 4)] {
            graph.connect(LABEL, from, to, RowDraft::default())?;
        }
        Ok(())
    })
    .unwrap();
    let view = ana.snapshot().unwrap();
    let error = Graph::over(view.collection("g").unwrap()).topological_order(LABEL, [0], 100).unwrap_err();
    let ErrorKind::DependencyCycle { path } = error.kind() else { panic!("{error}") };
    let path: Vec<&str> = path.split(" -> ").collect();
    assert_eq!((path.len(), path.first()), (4, path.last()));
    for pair in path.windows(2) {
        let edges = ["Integer(1) Integer(2)", "Integer(2) Integer(3)", "Integer(3) Integer(1)"];
        assert!(edges.contains(&format!("{} {}", pair[0], pair[1]).as_str()), "{path:?}");
    }
}
