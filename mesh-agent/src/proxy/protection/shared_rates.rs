//! Rates that the agents of all nodes count together, in Redis.
//!
//! What is counted is decided there, by a script, so that it holds whichever agents ask at once and however
//! their clocks differ. An agent that does not get an answer in time counts alone until it does.

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::time::timeout;

use redis::{AsyncConnectionConfig, Client, RedisError, Script, aio::MultiplexedConnection};

use super::{policy::RatePolicy, rates::TooMany};
use crate::policy::rate_limit::{Algorithm, Quota};

/// A request waits no longer than this to be counted.
const ANSWER: Duration = Duration::from_millis(50);
/// How long Redis is left alone after it did not answer.
const AWAY: Duration = Duration::from_secs(1);

/// What is counted, and how: as in `policy/rate_limit/`, but for the sliding window, which is the log there.
/// Times are microseconds of the server's clock. Answers whether a request may come, how long it has to wait or
/// when it may come again, what is left, and when all of it is.
const SCRIPT: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local key, algorithm = KEYS[1], ARGV[1]
local limit, per, burst = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local function keep(microseconds)
  redis.call('PEXPIRE', key, math.ceil(microseconds / 1000) + 1)
end
if algorithm == 'fixed-window' then
  local count = tonumber(redis.call('GET', key) or '0')
  local left = redis.call('PTTL', key) * 1000
  if left < 0 then count, left = 0, per end
  if count >= limit then return {0, left, 0, left} end
  if count == 0 then
    redis.call('SET', key, 1, 'PX', math.max(1, math.floor(per / 1000)))
  else
    redis.call('INCR', key)
  end
  return {1, 0, limit - count - 1, left}
end
if algorithm == 'log' then
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now - per)
  local count = redis.call('ZCARD', key)
  if count >= limit then
    local oldest = redis.call('ZRANGE', key, count - limit, count - limit, 'WITHSCORES')
    local after = tonumber(oldest[2]) + per - now
    return {0, math.max(after, 1), 0, per}
  end
  redis.call('ZADD', key, now, now .. ':' .. ARGV[5])
  keep(per)
  return {1, 0, limit - count - 1, per}
end
-- Both buckets by when the next request would be due (GCRA).
local apart = per / limit
local due = math.max(tonumber(redis.call('GET', key) or '0'), now)
local most = burst * apart
if algorithm == 'token-bucket' then most = most - apart end
local wait = due - now
if wait > most then
  return {0, math.ceil(wait - most), 0, math.ceil(wait)}
end
redis.call('SET', key, string.format('%.0f', due + apart))
keep(due + apart - now)
local left = math.floor((most - wait) / apart + 0.000001)
if algorithm == 'token-bucket' then wait = 0 end
return {1, math.ceil(wait), left, math.ceil(due + apart - now)}
";

/// Where the agents of all nodes count together.
pub struct SharedRates {
    client: Client,
    script: Script,
    connection: Mutex<Option<MultiplexedConnection>>,
    connecting: tokio::sync::Mutex<()>,
    away_until: Mutex<Option<Instant>>,
    number: AtomicU64,
}

/// It did not answer in time: every agent counts alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Away;

impl SharedRates {
    /// Counts at the server with this URL, once there is something to count.
    pub fn new(url: &str) -> Result<Self, RedisError> {
        Ok(Self {
            client: Client::open(url)?,
            script: Script::new(SCRIPT),
            connection: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            away_until: Mutex::default(),
            number: AtomicU64::new(rand::random()),
        })
    }

    /// Counts a request against a rate, if that allows it; says how long it has to wait. `key` stands for the
    /// rate and the requests that are counted together. Only `factor` of it is there.
    pub async fn take(
        &self,
        key: &str,
        policy: &RatePolicy,
        factor: f64,
    ) -> Result<Result<Duration, TooMany>, Away> {
        let now = Instant::now();
        let away_until = *lock(&self.away_until);
        if away_until.is_some_and(|until| now < until) {
            return Err(Away);
        }
        let limit = policy.limit.limit_at(factor);
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        // One request makes the connection; the others are not to wait for it.
        let mut connecting = None;
        if lock(&self.connection).is_none() {
            connecting = Some(self.connecting.try_lock().map_err(|_other| Away)?);
        }
        let asked = async {
            let mut connection = self.connection().await?;
            let mut call = self.script.key(key);
            call.arg(name(policy.limit.algorithm))
                .arg(limit)
                .arg(policy.limit.per.as_micros() as u64)
                .arg(policy.limit.burst_at(factor))
                .arg(format!("{number:x}"));
            call.invoke_async::<(u8, u64, u32, u64)>(&mut connection)
                .await
        };
        let asked = timeout(ANSWER, asked).await.unwrap_or_else(|_late| {
            let error = std::io::Error::from(std::io::ErrorKind::TimedOut);
            Err(RedisError::from(error))
        });
        drop(connecting);
        match asked {
            Ok((allowed, wait, remaining, reset)) => {
                if away_until.is_some() {
                    *lock(&self.away_until) = None;
                    tracing::info!("shared rates: Redis answers again");
                }
                let wait = Duration::from_micros(wait);
                Ok(if allowed == 1 {
                    Ok(wait)
                } else {
                    Err(TooMany {
                        retry_after: wait,
                        quota: Quota {
                            limit,
                            remaining,
                            reset: Duration::from_micros(reset),
                        },
                    })
                })
            }
            Err(error) => {
                *lock(&self.connection) = None;
                *lock(&self.away_until) = Some(Instant::now() + AWAY);
                if away_until.is_none() {
                    tracing::warn!(
                        "shared rates: Redis does not answer, this agent counts alone until it does: {error}"
                    );
                }
                Err(Away)
            }
        }
    }

    async fn connection(&self) -> Result<MultiplexedConnection, RedisError> {
        if let Some(connection) = &*lock(&self.connection) {
            return Ok(connection.clone());
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(ANSWER))
            .set_response_timeout(Some(ANSWER));
        let connecting = self
            .client
            .get_multiplexed_async_connection_with_config(&config);
        let connection = connecting.await?;
        *lock(&self.connection) = Some(connection.clone());
        Ok(connection)
    }
}

const fn name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::FixedWindow => "fixed-window",
        Algorithm::SlidingWindow | Algorithm::SlidingLog => "log",
        Algorithm::LeakyBucket => "leaky-bucket",
        Algorithm::TokenBucket => "token-bucket",
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for SharedRates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedRates").finish_non_exhaustive()
    }
}

/// The place of a rate among all that are counted there: the same on all nodes.
pub fn key(destination: &str, index: usize, policy: &RatePolicy, together: Option<u64>) -> String {
    let by = &policy.by;
    let together = together.unwrap_or_default();
    format!("mesh-agent:rate:{destination}:{index}:{by}:{together:x}")
}
