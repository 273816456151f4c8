//! One file, from the question to its place in the cache.

use super::address::{host, is_part};
use super::cache::{is_commit, Cache, PartialDownload};
use super::client::{body, Answer, Client, FetchFailure};
use super::download::{receive, Broken, Wanted};
use super::limits::{most, room, Limits, Patience, MOST_UNTOLD};
use super::promise::Promise;
use super::repo::Repo;
use std::path::{Path, PathBuf};
use ureq::http::Response;

/// A file to fetch.
pub(super) struct Fetch<'a> {
    pub(super) cache: &'a Cache,
    pub(super) limits: &'a Limits,
    pub(super) client: Client<'a>,
    pub(super) url: String,
    pub(super) repo: &'a Repo,
    /// The commit that is asked for, or the revision of which the cache knows none.
    pub(super) commit: String,
    pub(super) name: &'a str,
}

impl Fetch<'_> {
    /// Fetches a file, trying again what may pass.
    pub(super) fn run(
        &self,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<PathBuf, FetchFailure> {
        let mut patience = Patience::new(self.limits);
        // Why the try before failed.
        let mut before = String::new();
        loop {
            let tried = self.try_once(&mut |held, total| {
                patience.holds(held);
                progress(held, total);
            });
            let (reason, after) = match tried {
                Err(FetchFailure::Passing { reason, after }) => (reason, after),
                Err(FetchFailure::Absent { commit: Some(commit) }) => {
                    if is_commit(&commit) && (self.commit == commit || !is_commit(&self.commit)) {
                        self.cache.remember_absent(self.repo, &commit, self.name);
                        // As above: it only spares a question.
                        let _ = self.cache.remember_commit(self.repo, &commit);
                    }
                    return Err(FetchFailure::Absent { commit: Some(commit) });
                }
                Err(FetchFailure::Absent { commit: None }) => {
                    tracing::warn!(
                        "{}: 404, but not in the hub's own words (X-Error-Code): taken as absent \
                         this time; is the answer a mirror's or a proxy's?",
                        self.name
                    );
                    return Err(FetchFailure::Absent { commit: None });
                }
                Err(FetchFailure::Final(reason)) if !before.is_empty() => {
                    return Err(FetchFailure::Final(format!("{reason}; before that: {before}")));
                }
                done => return done,
            };
            let Some(wait) = patience.next(after) else {
                let asks = after.map_or(String::new(), |after| {
                    format!("; it asks to wait for {} s", after.as_secs())
                });
                return Err(FetchFailure::Final(format!("{reason}{asks}")));
            };
            let seconds = wait.as_secs_f64();
            tracing::warn!("{}: {reason}; trying again in {seconds} s", self.name);
            std::thread::sleep(wait);
            before = reason;
        }
    }

    /// Asks for a file, and puts what comes into the cache; `progress` gets the bytes that are there
    /// whenever they change.
    fn try_once(
        &self,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<PathBuf, FetchFailure> {
        let answer = self.client.ask(&self.url, 0)?;
        let refused = |reason: String| Err(FetchFailure::Final(reason));
        let promise = &answer.promise;
        if answer.response.status() != 200 {
            return refused(format!("{} sends a part that nobody asked for", host(&answer.at)));
        }
        let (Some(commit), Some(tag)) = (promise.commit.clone(), &promise.tag) else {
            return refused(format!(
                "{} does not answer as the hub does: it tells no commit (X-Repo-Commit) or no ETag; \
                 is it a mirror's or a proxy's answer?",
                host(&answer.at)
            ));
        };
        if !is_commit(&commit) || (is_commit(&self.commit) && commit != self.commit) {
            return refused(format!("the hub answered with the commit {commit:.80}"));
        }
        if !is_part(tag) {
            return refused("the hub answered with an ETag that can name no file".into());
        }
        let told = answer.response.body().content_length();
        let size = promise.size.or(told);
        if told.is_some_and(|told| Some(told) != size) {
            let (told, size) = (told.unwrap_or_default(), size.unwrap_or_default());
            let from = host(&answer.at);
            return refused(format!(
                "{from} sends {told} bytes, but the hub says that it has {size}"
            ));
        }
        let most = most(self.name);
        if let (Some(size), Some(most)) = (size, most) {
            if size > most {
                return refused(format!("it has {size} bytes, but such a file may have {most}"));
            }
        }
        let name = promise.blob_name(self.name);
        let blob = self.cache.blob(self.repo, &name);
        if !blob.is_file() {
            let most = size.or(most).unwrap_or(MOST_UNTOLD);
            self.complete(answer, &blob, size, most, progress)?;
        }
        let target = self.cache.snapshot(self.repo, &commit, self.name);
        self.cache
            .link(self.repo, &commit, self.name, &name)
            .and_then(|()| self.cache.remember_commit(self.repo, &commit))
            .map_err(|source| FetchFailure::Disk { path: target.clone(), source })?;
        Ok(target)
    }

    /// Completes the part of `blob` that is there, or begins it.
    fn complete(
        &self,
        answer: Answer,
        blob: &Path,
        size: Option<u64>,
        most: u64,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<(), FetchFailure> {
        let disk = |source| FetchFailure::Disk { path: blob.to_path_buf(), source };
        let mut part = PartialDownload::open(blob).map_err(disk)?;
        if blob.is_file() {
            // Another process was at it.
            part.remove();
            return Ok(());
        }
        let promise = match self.append(answer, &mut part, size, most, progress) {
            Ok(promise) => promise,
            Err(failure) => {
                // What came is kept for the next time; nothing is not.
                match part.len() {
                    Ok(0) => part.remove(),
                    _ => return Err(failure.but_kept()),
                }
                return Err(failure);
            }
        };
        if let Err(reason) = promise.check(&mut part.file).map_err(disk)? {
            part.remove();
            return Err(FetchFailure::Final(format!(
                "{reason}; it was removed, and the same command gets it anew"
            )));
        }
        part.finish(blob).map_err(disk)
    }

    /// Appends what a part still lacks.
    fn append(
        &self,
        answer: Answer,
        part: &mut PartialDownload,
        size: Option<u64>,
        most: u64,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<Promise, FetchFailure> {
        let path = part.path().to_path_buf();
        let disk = |source| FetchFailure::Disk { path: path.clone(), source };
        let Answer { mut response, promise, at } = answer;
        let mut have = part.len().map_err(disk)?;
        if size.is_none_or(|size| have > size) {
            // Of no use: it is longer than the file, or nobody knows.
            part.file.set_len(0).map_err(disk)?;
            have = 0;
        }
        progress(have, size);
        let (lacking, room) = (size.unwrap_or(0) - have, room(path.parent().unwrap_or(&path)));
        if lacking > room {
            return Err(FetchFailure::Final(format!(
                "it needs {lacking} bytes more, but the disk of {} has room for {room}",
                path.display()
            )));
        }
        if size == Some(have) {
            return Ok(promise);
        }
        if have > 0 {
            let rest = match self.client.ask(&at, have) {
                Err(FetchFailure::Final(_)) => self.client.ask(&at, 0),
                rest => rest,
            };
            response = rest?.response;
            if !goes_on_at(&response, have) {
                part.file.set_len(0).map_err(disk)?;
                have = 0;
            }
        }
        let wanted = Wanted { have, total: size, most, limits: self.limits };
        match receive(body(response), &mut part.file, &wanted, progress) {
            Ok(_) => Ok(promise),
            Err(Broken::Ended(reason)) => Err(FetchFailure::Passing { reason, after: None }),
            Err(Broken::Refused(reason)) => Err(FetchFailure::Final(reason)),
            Err(Broken::Disk(source)) => Err(disk(source)),
        }
    }
}

/// Whether an answer is the part of a file from byte `have` on.
fn goes_on_at(response: &Response<ureq::Body>, have: u64) -> bool {
    let range = response.headers().get("content-range").and_then(|range| range.to_str().ok());
    let start = range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next());
    response.status() == 206 && start == Some(have.to_string().as_str())
}
