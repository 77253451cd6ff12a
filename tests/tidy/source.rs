//! Reads the tree for the checks: every file's text, and of Rust files the functions, modules and
//! paths. Knows no rule.
//!
//! Names are followed through the imports of a file and into macros, but not through re-exports of
//! other files, and not through types: `started.elapsed()` reads a clock unseen.

use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};
use std::{
    collections::HashMap, fs, ops::RangeInclusive, os::unix::fs::PermissionsExt, path::Path,
};
use syn::visit::{self, Visit};
use syn::{Attribute, Expr, ExprLit, Item, ItemMod, ItemUse, Lit, Macro, Meta, MetaList, UseTree};

/// A file, and what its Rust says.
pub struct SourceFile {
    /// Relative to the folder of Cargo.toml.
    pub path: String,
    pub text: String,
    pub executable: bool,
    /// Whether all of it is Rust that is compiled for tests only.
    pub for_tests: bool,
    /// Empty for files that are no Rust.
    pub syntax: Syntax,
}

/// What the checks need to know of Rust. Lines count from 1.
#[derive(Default)]
pub struct Syntax {
    /// Lines of each function, from `fn` to the closing brace.
    pub functions: Vec<RangeInclusive<usize>>,
    pub unsafe_lines: Vec<usize>,
    pub inline_modules: Vec<(usize, String)>,
    pub references: Vec<Reference>,
    /// What a name stands for in the file; the flag is for names that only test code has.
    imports: HashMap<(String, bool), Vec<String>>,
    /// Modules in other files that are compiled for tests only, as paths without `.rs`.
    test_modules: Vec<String>,
    /// While reading: the file.
    path: String,
    /// While reading: how many modules the current item is below the crate's root.
    depth: usize,
    /// While reading: whether the current item is compiled for tests only.
    in_test: bool,
}

/// An import, or a path of two segments or more. One that climbs to the root begins with `crate`.
pub struct Reference {
    pub segments: Vec<String>,
    pub line: usize,
    pub in_test: bool,
}

/// Reads the files, and all files of the folders. What is not there is left out.
pub fn read_tree(paths: &[&str]) -> Vec<SourceFile> {
    let mut files = vec![];
    paths.iter().for_each(|path| read_path(path, &mut files));
    for path in ["src/lib.rs", "tests/tidy.rs"] {
        let read = files.iter().any(|file| file.path == path);
        assert!(read, "without {path} the checks see nothing");
    }
    mark_test_modules(&mut files);
    files
}

/// Folders that tools put beside the source.
const NOT_OURS: &[&str] = &["__pycache__", "node_modules", "target"];

/// Leaves out hidden files too.
fn read_path(path: &str, files: &mut Vec<SourceFile>) {
    let full = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let Ok(metadata) = fs::metadata(&full) else {
        return;
    };
    if metadata.is_file() {
        let bytes = fs::read(&full).unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut file = SourceFile::new(path, &String::from_utf8_lossy(&bytes));
        file.executable = metadata.permissions().mode() & 0o111 != 0;
        files.push(file);
        return;
    }
    let entries = fs::read_dir(&full).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut names: Vec<String> = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.') && !NOT_OURS.contains(&name.as_str()))
        .collect();
    names.sort();
    for name in names {
        read_path(&format!("{path}/{name}"), files);
    }
}

/// Finds the files that another one declares with `#[cfg(test)] mod name;`.
pub fn mark_test_modules(files: &mut [SourceFile]) {
    let modules: Vec<_> = files
        .iter()
        .flat_map(|file| file.syntax.test_modules.clone())
        .collect();
    for file in files {
        file.for_tests = modules.iter().any(|module| inside(&file.path, module));
    }
}

/// Whether the file is of the module: src/kafka.rs and all in src/kafka are inside `src/kafka`.
pub fn inside(path: &str, module: &str) -> bool {
    path.strip_prefix(module)
        .is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

impl SourceFile {
    /// Panics where a file that ends in `.rs` is no Rust.
    pub fn new(path: &str, text: &str) -> Self {
        let mut syntax = Syntax::default();
        if path.ends_with(".rs") {
            let read = syntax.read(path, text);
            read.unwrap_or_else(|error| panic!("{path}:{}: {error}", line_of(error.span())));
        }
        Self {
            path: path.into(),
            text: text.into(),
            executable: false,
            for_tests: false,
            syntax,
        }
    }

    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// By its first line, else by its name; what runs and has neither is held for one.
    pub fn is_shell_script(&self) -> bool {
        let first_line = self.text.lines().next().unwrap_or_default();
        if let Some(interpreter) = first_line.strip_prefix("#!") {
            return interpreter
                .split(['/', ' '])
                .any(|word| word.ends_with("sh"));
        }
        match Path::new(&self.path).extension() {
            Some(extension) => extension == "sh" || extension == "bash",
            None => self.executable,
        }
    }

    /// The file's or folder's name in src; `None` for files elsewhere.
    pub fn room(&self) -> Option<&str> {
        self.path.strip_prefix("src/")?.split(['/', '.']).next()
    }
}

/// The module that a file is: `src/kafka` for src/kafka/mod.rs, `src` for the roots.
fn module_of(path: &str) -> &str {
    let path = path.trim_end_matches(".rs");
    let roots = ["/lib", "/main", "/mod"];
    roots
        .iter()
        .find_map(|root| path.strip_suffix(root))
        .unwrap_or(path)
}

impl Syntax {
    /// Whether the reference is to the item, `a::b`, or to something in it, perhaps by an imported
    /// name. Where the import itself says it, only the import counts.
    pub fn says(&self, reference: &Reference, item: &str) -> bool {
        let (first, rest) = (&reference.segments[0], &reference.segments[1..]);
        let import = |in_test| self.imports.get(&(first.clone(), in_test));
        match import(reference.in_test).or_else(|| import(false)) {
            Some(import) => !leads_to(import, item) && leads_to(&[import, rest].concat(), item),
            None => leads_to(&reference.segments, item),
        }
    }

    fn read(&mut self, path: &str, text: &str) -> syn::Result<()> {
        self.path = path.into();
        self.depth = module_of(path).matches('/').count();
        let tokens: TokenStream = text.parse()?;
        self.measure(tokens.clone());
        let file: syn::File = syn::parse2(tokens)?;
        self.in_test = is_for_tests(&file.attrs);
        self.visit_file(&file);
        Ok(())
    }

    /// Finds functions and unsafe code by their tokens, since the syntax tree ends at macros.
    fn measure(&mut self, tokens: TokenStream) {
        let mut function = None;
        for token in tokens {
            match &token {
                TokenTree::Ident(word) if word == "fn" => function = Some(line_of(word.span())),
                TokenTree::Ident(word) if word == "unsafe" => {
                    self.unsafe_lines.push(line_of(word.span()));
                }
                // A declaration without a body, or a function's type.
                TokenTree::Punct(mark) if mark.as_char() == ';' => function = None,
                TokenTree::Group(group) => {
                    if group.delimiter() == Delimiter::Brace {
                        let lines = function
                            .take()
                            .map(|first| first..=line_of(group.span_close()));
                        self.functions.extend(lines);
                    }
                    self.measure(group.stream());
                }
                _ => {}
            }
        }
    }

    /// Finds the paths in the tokens of a macro or an attribute.
    fn read_paths(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = vec![];
        let mut line = 1;
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Punct(mark) if mark.as_char() == ':' => colons += 1,
                TokenTree::Ident(word) => {
                    if colons != 2 {
                        self.refer(std::mem::take(&mut path), line);
                    }
                    line = line_of(word.span());
                    path.push(word.to_string());
                    colons = 0;
                }
                other => {
                    self.refer(std::mem::take(&mut path), line);
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.read_paths(group.stream());
                    }
                }
            }
        }
        self.refer(path, line);
    }

    /// A lone name says nothing that its import doesn't.
    fn refer(&mut self, path: Vec<String>, line: usize) {
        if path.len() > 1 {
            self.push(path, line);
        }
    }

    fn import_tree(&mut self, tree: &UseTree, mut path: Vec<String>, line: usize) {
        let (last, name) = match tree {
            UseTree::Path(next) => {
                path.push(next.ident.to_string());
                return self.import_tree(&next.tree, path, line);
            }
            UseTree::Group(group) => {
                let trees = group.items.iter();
                return trees.for_each(|tree| self.import_tree(tree, path.clone(), line));
            }
            UseTree::Glob(_) => ("*".into(), "*".into()),
            UseTree::Name(leaf) => (leaf.ident.to_string(), leaf.ident.to_string()),
            UseTree::Rename(leaf) => (leaf.ident.to_string(), leaf.rename.to_string()),
        };
        if last != "self" {
            path.push(last);
        }
        let name = if name == "self" {
            path[path.len() - 1].clone()
        } else {
            name
        };
        // `use postgres;` makes no new name.
        if path != [name.as_str()] {
            self.imports
                .insert((name, self.in_test), self.rooted(path.clone()));
        }
        self.push(path, line);
    }

    fn push(&mut self, path: Vec<String>, line: usize) {
        let segments = self.rooted(path);
        self.references.push(Reference {
            segments,
            line,
            in_test: self.in_test,
        });
    }

    /// `super::super::x` as `crate::x` where that is where it leads.
    fn rooted(&self, mut path: Vec<String>) -> Vec<String> {
        let climbs = path.iter().take_while(|name| *name == "super").count();
        if climbs == self.depth && (climbs > 0 || path[0] == "self") {
            path.splice(..climbs.max(1), ["crate".to_string()]);
        }
        path
    }
}

impl<'ast> Visit<'ast> for Syntax {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes: &[Attribute] = match item {
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Mod(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            _ => &[],
        };
        let outside = self.in_test;
        self.in_test |= is_for_tests(attributes);
        visit::visit_item(self, item);
        self.in_test = outside;
    }

    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        let name = module.ident.to_string();
        // From here on the name is the module's, not that of a crate called the same.
        let itself = vec!["self".into(), name.clone()];
        self.imports.insert((name.clone(), self.in_test), itself);
        if module.content.is_some() {
            let line = line_of(module.ident.span());
            self.inline_modules.push((line, name));
        } else if self.in_test {
            let folder = self.path.rsplit_once('/').map_or("", |(folder, _)| folder);
            self.test_modules.push(match file_named(&module.attrs) {
                Some(file) => format!("{folder}/{}", file.trim_end_matches(".rs")),
                None => format!("{}/{name}", module_of(&self.path)),
            });
        }
        self.depth += 1;
        visit::visit_item_mod(self, module);
        self.depth -= 1;
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.import_tree(&item.tree, vec![], line_of(item.use_token.span));
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names = path.segments.iter().map(|segment| &segment.ident);
        let line = line_of(path.segments[0].ident.span());
        self.refer(names.map(ToString::to_string).collect(), line);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        self.visit_path(&call.path);
        self.read_paths(call.tokens.clone());
    }

    fn visit_meta_list(&mut self, list: &'ast MetaList) {
        self.visit_path(&list.path);
        self.read_paths(list.tokens.clone());
    }
}

/// Whether a path is to the item `a::b` or to something in it; `a::*` may be to anything in `a`.
fn leads_to(path: &[String], item: &str) -> bool {
    let (path, open) = match path.split_last() {
        Some((last, above)) if last == "*" => (above, true),
        _ => (path, false),
    };
    let item: Vec<&str> = item.split("::").collect();
    let shared = path.len().min(item.len());
    path[..shared] == item[..shared] && (open || path.len() >= item.len())
}

/// The file that `#[path = "..."]` names.
fn file_named(attributes: &[Attribute]) -> Option<String> {
    let mut named = attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("path"));
    match &named.next()?.meta.require_name_value().ok()?.value {
        Expr::Lit(ExprLit {
            lit: Lit::Str(file),
            ..
        }) => Some(file.value()),
        _ => None,
    }
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    let is = |condition: Meta| needs_test(&condition);
    let mut conditions = attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("cfg"));
    conditions.any(|attribute| attribute.parse_args().is_ok_and(is))
}

/// Whether a condition of `cfg` holds in test builds only: `test`, or `all(..)` with such a part.
fn needs_test(condition: &Meta) -> bool {
    let Meta::List(list) = condition else {
        return condition.path().is_ident("test");
    };
    let parse = syn::punctuated::Punctuated::<Meta, syn::Token![,]>::parse_terminated;
    let parts = list.parse_args_with(parse);
    list.path.is_ident("all") && parts.is_ok_and(|parts| parts.iter().any(needs_test))
}

fn line_of(span: Span) -> usize {
    span.start().line
}
