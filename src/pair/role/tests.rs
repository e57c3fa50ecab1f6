use std::collections::HashSet;

use super::*;

fn nodes(own: usize) -> Nodes {
    let name = |node: usize| ["a", "b"][node].to_owned();
    Nodes {
        own: name(own),
        partner: name(1 - own),
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn term(holder: &str, rest: Rest) -> Term {
    Term {
        epoch: 5,
        holder: holder.to_owned(),
        rest,
        in_step: true,
        since_unix_seconds: 0,
        taken_from: None,
        resumes: None,
    }
}

fn state(term: &Term, is_held: bool) -> Seen {
    Seen {
        term: term.clone(),
        is_held,
        partner_runs: true,
        partner: None,
    }
}

fn seen(term: &Term, is_held: bool) -> Event {
    Event::Looked(state(term, is_held))
}

fn handed(node: &str) -> Rest {
    Rest::HandedTo {
        node: node.to_owned(),
        is_return: false,
    }
}

/// Returns whether node b asks for a service without a holder, whose holder it has seen before or not.
fn asks(term: &Term, has_seen_holder: bool) -> bool {
    let mut role = Role::new(nodes(1));
    if has_seen_holder {
        assert_eq!(role.handle(seen(term, true), ms(0)), None);
    }
    role.handle(seen(term, false), ms(20)) == Some(Action::Ask)
}

//= patent claim-12, claim-13, claim-15, claim-16, claim-17
#[test]
fn the_record_names_the_owner_of_the_state() {
    let not_in_step = Term {
        in_step: false,
        ..term("a", Rest::Not)
    };
    for (term, standing, starting) in [
        (Term::first(), true, true),
        (term("a", Rest::Not), true, true),
        (not_in_step, false, false),
        (term("b", Rest::Not), true, true),
        (term("a", handed("b")), true, true),
        (term("a", Rest::Rebooting), false, false),
        (term("b", Rest::Rebooting), true, true),
        (term("a", Rest::Stopped), false, true),
    ] {
        assert_eq!(asks(&term, true), standing, "{term:?}");
        assert_eq!(asks(&term, false), starting, "{term:?}");
    }
}

//= patent fig4-411, fig4-413, fig4-415
#[test]
fn a_dead_node_is_fenced_before_anything_is_touched() {
    let mut role = Role::new(nodes(1));
    let died = term("a", Rest::Not);
    let ask = role.handle(seen(&died, false), ms(0));
    assert_eq!(ask, Some(Action::Ask));
    let fence = role.handle(Event::Asked(Some(died.clone())), ms(1));
    let node = "a".to_owned();
    assert_eq!(fence, Some(Action::Fence { node }));
    let taken = role.handle(Event::Fenced(Ok(())), ms(2));
    let Some(Action::Take(next)) = taken else {
        panic!("{taken:?}");
    };
    assert_eq!((next.epoch, &*next.holder), (6, "b"));
    let mount = role.handle(Event::Taken(Ok(())), ms(3));
    assert_eq!(mount, Some(Action::Mount));
    let served = role.handle(Event::Mounted(Ok(())), ms(4));
    assert_eq!(served, Some(Action::Serve));
    assert!(role.serves());
}

#[test]
fn without_the_fence_the_service_is_not_taken() {
    let mut role = Role::new(nodes(1));
    let died = term("a", Rest::Not);
    role.handle(seen(&died, false), ms(0));
    role.handle(Event::Asked(Some(died.clone())), ms(0));
    let released = role.handle(Event::Fenced(Err("no answer".into())), ms(0));
    assert_eq!(released, Some(Action::Release(None)));
    assert_eq!(role.trouble(), Some("no answer"));
    assert_eq!(role.deadline(), Some(PAUSE));
}

#[test]
fn the_service_is_taken_back_if_the_partner_does_not_take_it() {
    let mut role = Role::new(nodes(0));
    let handed = term("a", handed("b"));
    assert_eq!(role.handle(seen(&handed, false), ms(0)), None);
    assert_eq!(role.handle(seen(&handed, false), ms(9_999)), None);
    let ask = role.handle(seen(&handed, false), ms(10_000));
    assert_eq!(ask, Some(Action::Ask));
    // The holder ended in order at the last moment.
    let taken = term("b", Rest::Rebooting);
    let released = role.handle(Event::Asked(Some(taken)), ms(10_001));
    assert_eq!(released, Some(Action::Release(None)));
}

#[test]
fn force_needs_a_fence_where_the_holder_may_live() {
    let held = term("a", Rest::Not);
    let mut role = Role::new(nodes(1));
    role.handle(seen(&held, true), ms(0));
    let refused = role.force(&state(&held, true), false, ms(1)).unwrap_err();
    assert!(refused.contains("partner.fence_command"), "{refused}");
    let node = "a".to_owned();
    let forced = role.force(&state(&held, true), true, ms(1));
    assert_eq!(forced, Ok(Some(Action::Fence { node })));
    assert_eq!(role.handle(Event::Fenced(Ok(())), ms(2)), None);
    let ask = role.handle(seen(&held, false), ms(3));
    assert_eq!(ask, Some(Action::Ask));
    // No second attempt.
    let taken = role.handle(Event::Asked(Some(held)), ms(4));
    assert!(matches!(taken, Some(Action::Take(_))), "{taken:?}");
}

#[test]
fn force_takes_a_service_that_waits_for_the_other_node() {
    for rest in [Rest::Rebooting, Rest::Stopped, handed("a")] {
        let waiting = term("a", rest);
        let mut role = Role::new(nodes(1));
        role.handle(seen(&waiting, true), ms(0));
        assert_eq!(role.handle(seen(&waiting, false), ms(1)), None);
        assert_eq!(role.force(&state(&waiting, false), false, ms(1)), Ok(None));
        let ask = role.handle(seen(&waiting, false), ms(2));
        assert_eq!(ask, Some(Action::Ask));
    }
}

#[test]
fn a_file_system_that_stays_mounted_keeps_the_service_here() {
    let mut role = serving();
    let leaving = Leaving::HandedOver { is_return: false };
    let unmount = role.handle(Event::Left(leaving), ms(10));
    assert_eq!(unmount, Some(Action::Unmount));
    let served = role.handle(Event::Unmounted(Err("busy".into())), ms(11));
    assert_eq!(served, Some(Action::Serve));
    assert_eq!(role.trouble(), Some("busy"));
    // A node that ends is treated like one that crashed: the other one fences it.
    assert_eq!(
        role.handle(Event::Left(Leaving::Rebooting), ms(12)),
        Some(Action::Unmount)
    );
    let ended = role.handle(Event::Unmounted(Err("busy".into())), ms(13));
    assert_eq!(ended, Some(Action::End));
}

#[test]
fn a_node_that_cannot_mount_leaves_it_to_the_other() {
    let mut role = Role::new(nodes(0));
    let first = Term::first();
    role.handle(seen(&first, false), ms(0));
    role.handle(Event::Asked(Some(first)), ms(0));
    role.handle(Event::Taken(Ok(())), ms(0));
    let unmount = role.handle(Event::Mounted(Err("no disk".into())), ms(0));
    assert_eq!(unmount, Some(Action::Unmount));
    let released = role.handle(Event::Unmounted(Ok(())), ms(1));
    assert_eq!(released, Some(Action::Release(Some(handed("b")))));
    assert_eq!(role.trouble(), Some("no disk"));
    assert_eq!(role.deadline(), Some(ms(1) + PAUSE));
}

/// Node a, which serves.
fn serving() -> Role {
    let mut role = Role::new(nodes(0));
    let first = Term::first();
    role.handle(seen(&first, false), ms(0));
    role.handle(Event::Asked(Some(first)), ms(0));
    role.handle(Event::Taken(Ok(())), ms(0));
    role.handle(Event::Mounted(Ok(())), ms(0));
    assert!(role.serves());
    role
}

/// Two nodes, their arbiter and their mass storage.
#[derive(Clone, PartialEq, Eq, Hash)]
struct World {
    nodes: [Option<Node>; 2],
    lock: Option<usize>,
    term: Term,
    /// The nodes that have it mounted; a killed node has it mounted until it is fenced or started again.
    mounted: [bool; 2],
    now: Duration,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Node {
    role: Role,
    /// The action in progress.
    action: Option<Pending>,
    speaks: bool,
    was_forced: bool,
}

/// An [`Action`] that takes time.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Pending {
    Look,
    Ask,
    Fence,
    Mount,
    Take(Term),
    Unmount,
}

/// A possible next event.
#[derive(Clone, Debug)]
enum Step {
    /// The node's action ends, with success or not.
    Ends(usize, bool),
    Tick(usize),
    Leaves(usize, Leaving),
    Forced(usize),
    Killed(usize),
    Started(usize),
    /// The other node is in step, or not.
    Follows(bool),
    Later(u64),
}

impl World {
    fn new() -> World {
        World {
            nodes: [None, None],
            lock: None,
            term: Term::first(),
            mounted: [false; 2],
            now: ms(0),
        }
    }

    fn steps(&self) -> Vec<Step> {
        let mut steps = vec![Step::Later(20), Step::Later(10_000)];
        for (number, node) in self.nodes.iter().enumerate() {
            let Some(node) = node else {
                steps.push(Step::Started(number));
                continue;
            };
            steps.push(Step::Killed(number));
            if node.action.is_some() {
                steps.extend([Step::Ends(number, true), Step::Ends(number, false)]);
            } else if node.speaks {
                let handed = |is_return| Leaving::HandedOver { is_return };
                let ends = [Leaving::Rebooting, Leaving::Stopped, Leaving::Died];
                let all = [handed(false), handed(true)].into_iter().chain(ends);
                steps.extend(all.map(|leaving| Step::Leaves(number, leaving)));
                steps.push(Step::Follows(!self.term.in_step));
            } else {
                steps.extend([Step::Tick(number), Step::Forced(number)]);
            }
        }
        steps
    }

    fn after(&self, step: &Step) -> World {
        let mut world = self.clone();
        let now = world.now;
        match step {
            Step::Later(later) => world.now += ms(*later),
            Step::Follows(yes) => world.term.in_step = *yes,
            Step::Started(number) => {
                world.nodes[*number] = Some(Node {
                    role: Role::new(nodes(*number)),
                    action: None,
                    speaks: false,
                    was_forced: false,
                });
                world.mounted[*number] = false;
            }
            Step::Killed(number) => world.kill(*number),
            Step::Tick(number) => world.feed(*number, Event::Tick),
            Step::Leaves(number, leaving) => {
                world.node(*number).speaks = false;
                world.feed(*number, Event::Left(*leaving));
            }
            Step::Forced(number) => {
                let seen = state(&world.term, world.lock.is_some());
                let node = world.node(*number);
                node.was_forced = true;
                if let Ok(Some(action)) = node.role.force(&seen, true, now) {
                    world.begin(*number, action);
                }
            }
            Step::Ends(number, well) => world.finish(*number, *well),
        }
        world.check();
        world
    }

    fn node(&mut self, number: usize) -> &mut Node {
        self.nodes[number].as_mut().unwrap()
    }

    fn kill(&mut self, number: usize) {
        self.nodes[number] = None;
        self.lock = self.lock.filter(|holder| *holder != number);
    }

    fn feed(&mut self, number: usize, event: Event) {
        let now = self.now;
        if let Some(action) = self.node(number).role.handle(event, now) {
            self.begin(number, action);
        }
    }

    fn begin(&mut self, number: usize, action: Action) {
        let pending = match action {
            Action::Look => Pending::Look,
            Action::Ask => Pending::Ask,
            Action::Fence { .. } => Pending::Fence,
            Action::Mount => Pending::Mount,
            Action::Take(term) => Pending::Take(term),
            Action::Unmount => Pending::Unmount,
            Action::Serve => {
                self.node(number).speaks = true;
                return;
            }
            Action::Release(rest) => {
                assert_eq!(self.lock, Some(number), "only the holder writes");
                self.lock = None;
                if let Some(rest) = rest {
                    self.term.rest = rest;
                }
                if self.node(number).role.state == State::Over {
                    self.kill(number);
                }
                return;
            }
            Action::End => return self.kill(number),
        };
        self.node(number).action = Some(pending);
    }

    fn finish(&mut self, number: usize, well: bool) {
        let other = 1 - number;
        let result = if well {
            Ok(())
        } else {
            Err("it fails".to_owned())
        };
        let event = match self.node(number).action.take().unwrap() {
            Pending::Look if well => seen(&self.term, self.lock.is_some()),
            Pending::Look => Event::Failed("it fails".to_owned()),
            Pending::Ask if !well => Event::Failed("it fails".to_owned()),
            Pending::Ask if self.lock.is_some() => Event::Asked(None),
            Pending::Ask => {
                self.lock = Some(number);
                Event::Asked(Some(self.term.clone()))
            }
            Pending::Fence => {
                if well {
                    self.kill(other);
                    self.mounted[other] = false;
                }
                Event::Fenced(result)
            }
            Pending::Mount => {
                self.mounted[number] |= well;
                Event::Mounted(result)
            }
            Pending::Take(term) => {
                if well {
                    self.take(number, term);
                }
                Event::Taken(result)
            }
            Pending::Unmount => {
                self.mounted[number] &= !well;
                Event::Unmounted(result)
            }
        };
        self.feed(number, event);
    }

    fn take(&mut self, number: usize, term: Term) {
        assert_eq!(self.lock, Some(number), "only the holder writes");
        assert!(term.epoch > self.term.epoch, "the epoch grows");
        let own = &nodes(number).own;
        let of_another = self.term.holder != *own && !self.term.holder.is_empty();
        let has_died = self.term.rest == Rest::Not;
        if of_another && has_died && !self.term.in_step {
            assert!(self.node(number).was_forced, "not in step");
        }
        self.term = term;
    }

    fn check(&self) {
        let speak = |node: &Option<Node>| node.as_ref().is_some_and(|node| node.speaks);
        let speakers: Vec<_> = (0..2).filter(|n| speak(&self.nodes[*n])).collect();
        assert!(speakers.len() < 2, "two speakers");
        for number in speakers {
            assert_eq!(self.lock, Some(number), "a sender holds the lock");
            assert_eq!(self.term.holder, nodes(number).own);
            assert!(self.mounted[number]);
        }
        assert!(self.mounted != [true; 2], "mounted twice");
    }
}

#[test]
fn every_interleaving_has_at_most_one_sender() {
    let mut known = HashSet::from([World::new()]);
    let mut last = vec![World::new()];
    for _ in 0..11 {
        let mut next = Vec::new();
        for world in last {
            for step in world.steps() {
                let after = world.after(&step);
                if known.insert(after.clone()) {
                    next.push(after);
                }
            }
        }
        last = next;
    }
    let served = |number: usize| {
        let mut nodes = known
            .iter()
            .filter_map(|world| world.nodes[number].as_ref());
        nodes.any(|node| node.speaks)
    };
    assert!(served(0) && served(1));
}

#[test]
fn long_runs_have_at_most_one_sender() {
    let mut takeovers = 0;
    for seed in 0..2_000_u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut world = World::new();
        for _ in 0..200 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let mut steps = world.steps();
            // Actions mostly succeed, and an idle node mostly reads the record: otherwise the service is hardly ever
            // taken.
            let is_usual = |step: &Step| matches!(step, Step::Ends(_, true) | Step::Tick(_));
            if random >> 62 != 0 && steps.iter().any(is_usual) {
                steps.retain(is_usual);
                world.now += PACE;
            }
            let step = &steps[random as usize % steps.len()];
            let before = world.term.holder.clone();
            world = world.after(step);
            takeovers += u64::from(before != world.term.holder);
        }
    }
    assert!(takeovers > 500, "{takeovers}");
}
