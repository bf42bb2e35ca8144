//! The site's conversation with the server: register, pull, submit, heartbeat, quit.
