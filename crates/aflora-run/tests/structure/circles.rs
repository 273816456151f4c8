//! What the sources say of their own structure: within a crate, files use one another without a
//! circle, so that each can be read, tested and moved with nothing but what stands below it.
//!
//! A file uses what its `use` items and its paths from `crate` or `super` name; a name that a module
//! only passes on (`pub use`) leads to the file that has it. What macros expand to is not seen, and
//! what only tests use does not count.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemUse, UseTree, Visibility};

/// A module's or an item's path from its crate's root.
type Names = Vec<String>;

/// What a file names.
#[derive(Default)]
struct Named {
    /// Paths of `use` items as written, each with whether it is public.
    uses: Vec<(bool, Names)>,
    /// Paths in code that begin with `crate` or `super`.
    inline: Vec<Names>,
}

impl Visit<'_> for Named {
    fn visit_item(&mut self, item: &Item) {
        let attributes: &[Attribute] = match item {
            Item::Mod(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            _ => &[],
        };
        let is_test = |attribute: &Attribute| {
            attribute.path().is_ident("cfg")
                && attribute.parse_args::<syn::Ident>().is_ok_and(|of| of == "test")
        };
        if !attributes.iter().any(is_test) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &ItemUse) {
        let public = !matches!(item.vis, Visibility::Inherited);
        leaves(&item.tree, &mut Vec::new(), &mut |path| self.uses.push((public, path)));
    }

    // The `super` of `pub(super)` uses nothing.
    fn visit_visibility(&mut self, _: &Visibility) {}

    fn visit_path(&mut self, path: &syn::Path) {
        let names: Names = path.segments.iter().map(|s| s.ident.to_string()).collect();
        if ["crate", "super"].contains(&names[0].as_str()) {
            self.inline.push(names);
        }
        visit::visit_path(self, path);
    }
}

fn leaves(tree: &UseTree, before: &mut Names, take: &mut dyn FnMut(Names)) {
    let mut with = |name: &syn::Ident| {
        let mut path = before.clone();
        if name != "self" {
            path.push(name.to_string());
        }
        take(path);
    };
    match tree {
        UseTree::Path(path) => {
            before.push(path.ident.to_string());
            leaves(&path.tree, before, take);
            before.pop();
        }
        UseTree::Group(group) => group.items.iter().for_each(|tree| leaves(tree, before, take)),
        UseTree::Name(name) => with(&name.ident),
        UseTree::Rename(name) => with(&name.ident),
        UseTree::Glob(_) => take(before.clone()),
    }
}

/// A crate's files, by their modules.
struct Sources(BTreeMap<Names, Named>);

impl Sources {
    fn read(src: &Path) -> Sources {
        let mut files = BTreeMap::new();
        collect(src, src, &mut files);
        Sources(files)
    }

    /// A path as it stands in `module`, from the crate's root; none of what is of another crate.
    fn absolute(&self, module: &Names, path: &Names) -> Option<Names> {
        let mut at = module.clone();
        let mut path = &path[..];
        match path.first()?.as_str() {
            "crate" => return Some(path[1..].to_vec()),
            "self" => path = &path[1..],
            "super" => {
                while path.first().is_some_and(|name| name == "super") {
                    at.pop();
                    path = &path[1..];
                }
            }
            child => {
                let mut module = module.clone();
                module.push(child.into());
                self.0.get(&module)?;
            }
        }
        at.extend(path.iter().cloned());
        Some(at)
    }

    /// The module whose file has what `path` leads to.
    fn home(&self, path: &Names, depth: usize) -> Option<Names> {
        for end in (0..=path.len()).rev() {
            let (module, rest) = (path[..end].to_vec(), &path[end..]);
            let Some(named) = self.0.get(&module) else { continue };
            let passed_on = |wanted: &String| {
                let mut public = named.uses.iter().filter(|(public, _)| *public);
                let (_, found) = public.find(|(_, path)| path.last() == Some(wanted))?;
                self.absolute(&module, found).filter(|found| found != path)
            };
            return match rest.first().and_then(passed_on) {
                Some(mut onward) if depth < 8 => {
                    onward.extend(rest[1..].iter().cloned());
                    self.home(&onward, depth + 1)
                }
                _ => Some(module),
            };
        }
        None
    }

    /// The modules that each module uses.
    fn arrows(&self) -> BTreeMap<&Names, BTreeSet<Names>> {
        let uses = |(module, named): (_, &Named)| {
            let own = named.uses.iter().filter_map(|(public, path)| {
                let path = self.absolute(module, path)?;
                // A module passes on what its children have without using it.
                (!*public || !path.starts_with(module)).then_some(path)
            });
            let inline = named.inline.iter().filter_map(|path| self.absolute(module, path));
            let homes = own.chain(inline).filter_map(|path| self.home(&path, 0));
            homes.filter(|home| home != module).collect()
        };
        self.0.iter().map(|(module, named)| (module, uses((module, named)))).collect()
    }
}

fn collect(src: &Path, folder: &Path, files: &mut BTreeMap<Names, Named>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(src, &path, files);
            continue;
        }
        if path.extension().is_none_or(|ending| ending != "rs") || path == src.join("main.rs") {
            continue;
        }
        let below = path.strip_prefix(src).unwrap().with_extension("");
        let mut module: Names =
            below.iter().map(|part| part.to_str().unwrap().to_string()).collect();
        if module == ["lib"] || module.last().is_some_and(|name| name == "mod") {
            module.pop();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let file = syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut named = Named::default();
        named.visit_file(&file);
        files.insert(module, named);
    }
}

/// The modules on a circle, or between two circles.
fn circles(arrows: &BTreeMap<&Names, BTreeSet<Names>>) -> BTreeSet<Names> {
    let mut left: BTreeSet<Names> = arrows.keys().map(|module| (*module).clone()).collect();
    loop {
        let uses = |module: &Names| arrows[module].iter().any(|used| left.contains(used));
        let is_used = |module: &Names| left.iter().any(|user| arrows[user].contains(module));
        let kept: BTreeSet<Names> =
            left.iter().filter(|module| uses(module) && is_used(module)).cloned().collect();
        if kept.len() == left.len() {
            return left;
        }
        left = kept;
    }
}

fn crates() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let folders = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path().join("src"));
    let mut folders: Vec<PathBuf> = folders.filter(|src| src.is_dir()).collect();
    folders.sort();
    folders
}

#[test]
fn no_files_use_one_another_in_a_circle() {
    let crates = crates();
    assert!(crates.len() > 5, "{crates:?}");
    let mut found = Vec::new();
    for src in crates {
        let sources = Sources::read(&src);
        let arrows = sources.arrows();
        let on_circles = circles(&arrows);
        for module in &on_circles {
            let used: Vec<String> =
                arrows[module].intersection(&on_circles).map(|used| used.join("::")).collect();
            let name = src.parent().unwrap().file_name().unwrap().to_string_lossy();
            found.push(format!("{name}: {} uses {}", module.join("::"), used.join(", ")));
        }
    }
    assert!(found.is_empty(), "a circle of files:\n{}", found.join("\n"));
}

#[test]
fn a_circle_is_found_through_names_that_are_passed_on() {
    let place = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = place.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("lib.rs", "mod a; mod b; mod c; pub use a::{Low, High};");
    write("a/mod.rs", "mod low; mod high; pub use low::Low; pub use high::High;");
    write("a/low.rs", "pub struct Low;");
    write("a/high.rs", "use super::Low; pub fn f() -> crate::b::B { todo!() } pub struct High;");
    write("b.rs", "pub struct B; #[cfg(test)] mod tests { use crate::High; }");
    write("c.rs", "use crate::{b::B, Low};");
    let of = |place: &Path| {
        let sources = Sources::read(place);
        let found = circles(&sources.arrows());
        found.iter().map(|module| module.join("::")).collect::<Vec<_>>()
    };
    assert!(of(place.path()).is_empty(), "{:?}", of(place.path()));
    write("b.rs", "use crate::High; pub struct B;");
    assert_eq!(of(place.path()), ["a::high", "b"]);
}
