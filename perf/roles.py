"""The roles of a consumer's threads, by what their names begin with."""

ROLES = (("poller", "mp-poll"), ("workers", "mp-w"), ("librdkafka", "rdk:"), ("others", ""))


def role_of(thread):
    return next(role for role, prefix in ROLES if thread.startswith(prefix))
