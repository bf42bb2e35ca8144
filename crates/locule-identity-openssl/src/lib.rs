//! X.509, RSA-PSS and certificate issuing with OpenSSL.
