//! Name operations of a client: many small files are made, replaced, renamed and deleted, in directories that are made
//! and removed.

use std::path::PathBuf;

use crate::support::Rng;
use crate::support::files::Tree;
use crate::support::lab::Lab;

/// Commands for smbclient, and the expected result.
pub struct Names {
    /// The directory on the share in which everything happens.
    root: String,
    commands: String,
    steps: usize,
    contents: Vec<Vec<u8>>,
    tree: Tree,
}

impl Names {
    /// Makes a random run of so many steps.
    pub fn new(root: &str, steps: usize, rng: &mut Rng) -> Names {
        let contents = (0..8).map(|_| {
            let length = rng.below(20_000);
            rng.bytes(length)
        });
        let mut names = Names {
            root: root.to_owned(),
            commands: String::new(),
            steps: 0,
            contents: contents.collect(),
            tree: Tree::new(),
        };
        names.step(format!("mkdir {root}"));
        names.tree.insert(root.to_owned(), None);
        for number in 0..steps {
            names.random_step(number, rng);
        }
        names
    }

    fn step(&mut self, command: String) {
        self.commands += &(command + ";");
        self.steps += 1;
    }

    fn random_step(&mut self, number: usize, rng: &mut Rng) {
        let files = self.paths(true);
        let directories = self.paths(false);
        let mut pick =
            |paths: &[String]| (!paths.is_empty()).then(|| paths[rng.below(paths.len())].clone());
        let (file, directory) = (pick(&files), pick(&directories).expect("the root"));
        let fresh = format!("{directory}/{number}");
        let chance = rng.below(100);
        match (chance, file) {
            (0..15, _) => {
                self.step(format!("mkdir {}", smb(&fresh)));
                self.tree.insert(fresh, None);
            }
            (15..22, _) if directory != self.root && self.is_empty(&directory) => {
                self.step(format!("rmdir {}", smb(&directory)));
                self.tree.remove(&directory);
            }
            (22..45, Some(file)) => {
                self.step(format!("rename {} {}", smb(&file), smb(&fresh)));
                let content = self.tree.remove(&file).expect("a file");
                self.tree.insert(fresh, content);
            }
            (45..60, Some(file)) => {
                self.step(format!("rm {}", smb(&file)));
                self.tree.remove(&file);
            }
            (60..70, Some(file)) => self.put(file, rng),
            _ => self.put(fresh, rng),
        }
    }

    fn put(&mut self, path: String, rng: &mut Rng) {
        let which = rng.below(self.contents.len());
        self.step(format!("put {which} {}", smb(&path)));
        self.tree.insert(path, Some(self.contents[which].clone()));
    }

    fn paths(&self, files: bool) -> Vec<String> {
        let paths = self.tree.iter();
        let paths = paths.filter(|(_, content)| content.is_some() == files);
        paths.map(|(path, _)| path.clone()).collect()
    }

    fn is_empty(&self, directory: &str) -> bool {
        let inside = format!("{directory}/");
        !self.tree.keys().any(|path| path.starts_with(&inside))
    }

    /// Makes the client's directory with the files that it puts.
    pub fn local(&self, lab: &Lab) -> PathBuf {
        let local = lab.make_dir(&format!("local/{}", self.root));
        for (name, content) in self.contents.iter().enumerate() {
            std::fs::write(local.join(name.to_string()), content).expect("a file");
        }
        local
    }

    /// The commands for smbclient.
    pub fn commands(&self) -> &str {
        &self.commands
    }

    pub fn steps(&self) -> usize {
        self.steps
    }

    /// The expected files afterwards.
    pub fn expected(&self) -> Tree {
        self.tree.clone()
    }
}

/// A path in smbclient's form.
fn smb(path: &str) -> String {
    path.replace('/', "\\")
}
