//! A protocol tester: writes a heartbeat as a site does, and reads it as a server does.

use std::error::Error;

use locule_protocol::{AdminCommand, AdminRequest, Heartbeat, site_context};

fn main() -> Result<(), Box<dyn Error>> {
    let beat = Heartbeat {
        project_name: "hospitals".into(),
        job_ids: vec!["9fd1".into()],
        peer: site_context("site-1", None),
    };
    let parts = beat.to_parts()?;
    assert_eq!(Heartbeat::from_parts(&parts.headers, &parts.payload)?, beat);
    assert_eq!((Heartbeat::CHANNEL, Heartbeat::TOPIC), ("task", "heart_beat"));

    let abort = AdminRequest::new("1", AdminCommand::Abort { job_id: "9fd1".into() });
    let parts = abort.to_parts()?;
    assert_eq!(AdminRequest::from_parts(&parts.headers, &parts.payload)?.command, abort.command);
    assert!(Heartbeat::from_parts(&parts.headers, &parts.payload).is_err());
    Ok(())
}
