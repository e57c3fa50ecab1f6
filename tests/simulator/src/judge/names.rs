//! Judges operations on names, and reports their changes to the clients that watch the directory.

use super::{Content, Judge, Node, Verdict, parent, plain, verdict};
use crate::status;
use crate::workload::Handle;

impl Judge {
    pub(super) fn is_dir(&self, path: &str) -> bool {
        let node = self.names.get(path);
        node.is_some_and(|node| self.nodes[*node].is_dir)
    }

    pub(super) fn rename(&mut self, handle: Handle, to: &str, replace: bool) -> u32 {
        let open = &self.opens[&handle];
        let (node, from) = (open.node, open.path.clone());
        if self.names.get(&from) != Some(&node) {
            return status::OBJECT_NAME_NOT_FOUND;
        }
        let replaced = match self.target(node, to, replace) {
            Err(refused) => return refused,
            Ok(replaced) => replaced,
        };
        // MS-FSA 2.1.5.14.11: no rename while the directory is open with the right to delete it.
        let directory = self.names.get(parent(&from)).copied();
        let mut opens = self.opens.values();
        if opens.any(|open| open.deletes_directory && Some(open.node) == directory) {
            return status::SHARING_VIOLATION;
        }
        if let Some(replaced) = replaced {
            self.nodes[replaced].links -= 1;
        }
        if from != to && self.names.get(to) == Some(&node) {
            // Two names of one file become one.
            self.nodes[node].links -= 1;
        }
        self.names.remove(&from);
        self.names.insert(to.to_owned(), node);
        for open in self.opens.values_mut().filter(|open| open.path == from) {
            open.path = to.to_owned();
        }
        if self.doomed.remove(&from) {
            self.doomed.insert(to.to_owned());
        }
        status::SUCCESS
    }

    pub(super) fn link(&mut self, handle: Handle, to: &str, replace: bool) -> u32 {
        let node = self.opens[&handle].node;
        if self.names.get(to) == Some(&node) {
            return if replace {
                status::SUCCESS
            } else {
                status::OBJECT_NAME_COLLISION
            };
        }
        match self.target(node, to, replace) {
            Err(refused) => refused,
            Ok(_) if self.rules.has_no_links => status::ACCESS_DENIED,
            Ok(replaced) => {
                if let Some(replaced) = replaced {
                    self.nodes[replaced].links -= 1;
                }
                self.names.insert(to.to_owned(), node);
                self.nodes[node].links += 1;
                status::SUCCESS
            }
        }
    }

    /// Returns the file that is replaced if a file gets this name, or the status if it must not get it.
    fn target(&self, node: Node, to: &str, replace: bool) -> Result<Option<Node>, u32> {
        if !self.is_dir(parent(to)) {
            return Err(status::OBJECT_PATH_NOT_FOUND);
        }
        match self.names.get(to).copied() {
            None => Ok(None),
            Some(there) if there == node => Ok(None),
            Some(_) if !replace => Err(status::OBJECT_NAME_COLLISION),
            Some(there) if self.opens.values().any(|open| open.node == there) => {
                Err(status::ACCESS_DENIED)
            }
            Some(there) if self.nodes[there].is_dir => Err(status::ACCESS_DENIED),
            Some(there) => Ok(Some(there)),
        }
    }

    pub(super) fn dispose(&mut self, handle: Handle, delete: bool) -> u32 {
        let open = &self.opens[&handle];
        let below = format!("{}/", open.path);
        if delete
            && self.nodes[open.node].is_dir
            && self.names.keys().any(|name| name.starts_with(&below))
        {
            return status::DIRECTORY_NOT_EMPTY;
        }
        let path = open.path.clone();
        if delete {
            self.doom(&path);
        } else {
            self.doomed.remove(&path);
        }
        status::SUCCESS
    }

    /// Marks a name for deletion. Requests that wait for changes in it are refused.
    pub(super) fn doom(&mut self, path: &str) {
        self.doomed.insert(path.to_owned());
        let opens = self.opens.values_mut().filter(|open| open.path == path);
        let waiting: Vec<usize> = opens.filter_map(|open| open.notify.take()).collect();
        for op in waiting {
            self.finish(op, plain(status::DELETE_PENDING));
        }
    }

    /// Judges a listing, which continues where it was: after its end it returns no more names.
    pub(super) fn walk(&mut self, handle: Handle) -> Verdict {
        let walked = self.opens.get_mut(&handle).map(|open| &mut open.walked);
        if walked.is_some_and(|walked| std::mem::replace(walked, true)) {
            return verdict(status::SUCCESS, Content::Names(Vec::new()));
        }
        let open = &self.opens[&handle];
        if !self.nodes[open.node].is_dir {
            return plain(status::INVALID_DEVICE_REQUEST);
        }
        let below = format!("{}/", open.path);
        let mut names: Vec<String> = vec![".".into(), "..".into()];
        let beneath = self
            .names
            .keys()
            .filter_map(|name| name.strip_prefix(&below));
        names.extend(
            beneath
                .filter(|name| !name.contains('/'))
                .map(str::to_owned),
        );
        verdict(status::SUCCESS, Content::Names(names))
    }

    /// Reports a name that was created (1) or removed (2) to the requests that wait for changes of its directory.
    pub(super) fn notice(&mut self, path: &str, action: u32) {
        let dir = parent(path).to_owned();
        let name = path.rsplit('/').next().unwrap_or(path).to_owned();
        let waiting: Vec<usize> = self
            .opens
            .values_mut()
            .filter(|open| open.path == dir)
            .filter_map(|open| open.notify.take())
            .collect();
        for op in waiting {
            let notice = Content::Notice(action, name.clone());
            self.finish(op, verdict(status::SUCCESS, notice));
        }
    }
}
