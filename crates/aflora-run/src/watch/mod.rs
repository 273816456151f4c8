//! x
/// x
pub fn watch(_: &std::path::Path) -> anyhow::Result<()> {
    Ok(())
}
