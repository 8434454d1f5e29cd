//! Goal: every rule finds its shape of secret in every dress that JSON gives it, and nothing that merely looks like one.
//!
//! Method: a table of made-up secrets, put together at run time so that no scanner finds any in this repository, each in a
//! plain string, in JSON in a string, in JSON in JSON in a string, as a key, in a terminal's colours, behind needless escapes;
//! a table of what agents write that is no secret.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

use counterfoil::{Redactor, Secrets, mark};

const ALNUM: &str = "aK3bZ9cQ7dX1eW5fV8gU2hT6iS4jR0kPmNnLoMpHqGrFsEtDuCvByA";
const LOWER: &str = "a3b9c7d1e5f8g2h6i4j0kmnpqrstuvwxyz";
const UPPER: &str = "K3Z9Q7X1W5V8U2T6S4R0PNLMHGFEDCBYA";
const HEX: &str = "a3b9c7d1e5f8024";
const HEX_UPPER: &str = "A3B9C7D1E5F8024";
const BASE32: &str = "K3Z5Q7X2W5V3U2T6S4R7PNLMHGFEDCBYA";
const LETTERS: &str = "aKbZcQdXeWfVgUhTiSjRkPmNnLoMpHqGrFsEtDuCvByA";
const DIGITS: &str = "8302917465";

fn fill(alphabet: &str, len: usize) -> String {
    alphabet.chars().cycle().take(len).collect()
}

/// Parts of text: `@` stands for letters and digits, and so on; all else for itself. So a secret is never written out here.
fn make(pieces: &[(&str, usize)]) -> String {
    pieces
        .iter()
        .map(|(piece, len)| match *piece {
            "@alnum" => fill(ALNUM, *len),
            "@lower" => fill(LOWER, *len),
            "@upper" => fill(UPPER, *len),
            "@hex" => fill(HEX, *len),
            "@HEX" => fill(HEX_UPPER, *len),
            "@base32" => fill(BASE32, *len),
            "@letters" => fill(LETTERS, *len),
            "@digits" => fill(DIGITS, *len),
            "@bech32" => fill("QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L", *len),
            text => text.repeat(*len),
        })
        .collect()
}

/// Rule, what stands before the secret, the secret, what stands after it.
fn secrets() -> Vec<(&'static str, String, String, String)> {
    let alone: &[(&str, &[(&str, usize)])] = &[
        ("age-secret-key", &[("AGE-SECRET-", 1), ("KEY-1", 1), ("@bech32", 58)]),
        ("aws-access-token", &[("AK", 1), ("IA", 1), ("@base32", 16)]),
        ("aws-access-token", &[("AS", 1), ("IA", 1), ("@base32", 16)]),
        ("aws-amazon-bedrock-api-key-long-lived", &[("AB", 1), ("SK", 1), ("@alnum", 120)]),
        ("gcp-api-key", &[("AI", 1), ("za", 1), ("@alnum", 35)]),
        ("gcp-oauth-client-secret", &[("GOC", 1), ("SPX-", 1), ("@alnum", 28)]),
        ("gcp-oauth-access-token", &[("ya", 1), ("29.", 1), ("@alnum", 80)]),
        ("azure-ad-client-secret", &[("@alnum", 3), ("8Q", 1), ("~", 1), ("@alnum", 34)]),
        ("alibaba-access-key-id", &[("LT", 1), ("AI", 1), ("@alnum", 20)]),
        ("digitalocean-access-token", &[("dop_", 1), ("v1_", 1), ("@hex", 64)]),
        ("cloudflare-origin-ca-key", &[("v1.", 1), ("0-", 1), ("@hex", 24), ("-", 1), ("@hex", 146)]),
        ("heroku-api-key-v2", &[("HRKU", 1), ("-AA", 1), ("@alnum", 58)]),
        ("flyio-access-token", &[("fo", 1), ("1_", 1), ("@alnum", 43)]),
        ("flyio-access-token", &[("fm", 1), ("2_", 1), ("@alnum", 140)]),
        ("databricks-api-token", &[("da", 1), ("pi", 1), ("@hex", 32)]),
        ("planetscale-token", &[("pscale", 1), ("_pw_", 1), ("@alnum", 43)]),
        ("supabase-token", &[("sb", 1), ("p_", 1), ("@hex", 40)]),
        ("pulumi-api-token", &[("pu", 1), ("l-", 1), ("@hex", 40)]),
        ("hashicorp-tf-api-token", &[("@alnum", 14), (".atlas", 1), ("v1.", 1), ("@alnum", 67)]),
        ("vault-token", &[("hv", 1), ("s.", 1), ("@alnum", 95)]),
        ("doppler-api-token", &[("dp.", 1), ("pt.", 1), ("@alnum", 43)]),
        ("tailscale-key", &[("tskey", 1), ("-auth-", 1), ("@alnum", 17), ("-", 1), ("@alnum", 32)]),
        ("openshift-user-token", &[("sha", 1), ("256~", 1), ("@alnum", 43)]),
        (
            "1password-secret-key",
            &[
                ("A", 1),
                ("3-", 1),
                ("@upper", 6),
                ("-", 1),
                ("@upper", 11),
                ("-", 1),
                ("@upper", 5),
                ("-", 1),
                ("@upper", 5),
                ("-", 1),
                ("@upper", 5),
            ],
        ),
        ("1password-service-account-token", &[("op", 1), ("s_ey", 1), ("J", 1), ("@alnum", 260)]),
        ("anthropic-api-key", &[("sk-", 1), ("ant-api03-", 1), ("@alnum", 93), ("AA", 1)]),
        ("anthropic-api-key", &[("sk-", 1), ("ant-oat01-", 1), ("@alnum", 93), ("AA", 1)]),
        ("openai-api-key", &[("sk-", 1), ("proj-", 1), ("@alnum", 74), ("T3Blbk", 1), ("FJ", 1), ("@alnum", 74)]),
        ("openai-api-key", &[("sk-", 1), ("@alnum", 20), ("T3Blbk", 1), ("FJ", 1), ("@alnum", 20)]),
        ("openrouter-api-key", &[("sk-", 1), ("or-v1-", 1), ("@hex", 64)]),
        ("huggingface-access-token", &[("h", 1), ("f_", 1), ("@letters", 34)]),
        ("perplexity-api-key", &[("pp", 1), ("lx-", 1), ("@alnum", 48)]),
        ("groq-api-key", &[("gs", 1), ("k_", 1), ("@alnum", 52)]),
        ("xai-api-key", &[("xa", 1), ("i-", 1), ("@alnum", 80)]),
        ("replicate-api-token", &[("r", 1), ("8_", 1), ("@alnum", 37)]),
        ("github-token", &[("gh", 1), ("p_", 1), ("@alnum", 36)]),
        ("github-token", &[("gh", 1), ("s_", 1), ("@alnum", 36)]),
        ("github-fine-grained-pat", &[("github", 1), ("_pat_", 1), ("@alnum", 22), ("_", 1), ("@alnum", 59)]),
        ("gitlab-token", &[("gl", 1), ("pat-", 1), ("@alnum", 20)]),
        ("gitlab-token", &[("gl", 1), ("ptt-", 1), ("@hex", 40)]),
        ("npm-access-token", &[("np", 1), ("m_", 1), ("@alnum", 36)]),
        ("pypi-upload-token", &[("pypi-AgEIcHl", 1), ("waS5vcmc", 1), ("@alnum", 90)]),
        ("rubygems-api-token", &[("ruby", 1), ("gems_", 1), ("@hex", 48)]),
        ("crates-io-token", &[("c", 1), ("io", 1), ("@alnum", 32)]),
        ("clojars-api-token", &[("CLO", 1), ("JARS_", 1), ("@lower", 60)]),
        ("docker-token", &[("dckr", 1), ("_pat_", 1), ("@alnum", 27)]),
        ("artifactory-api-key", &[("AK", 1), ("Cp", 1), ("@alnum", 69)]),
        ("sourcegraph-access-token", &[("sg", 1), ("p_", 1), ("@hex", 40)]),
        ("atlassian-api-token", &[("ATA", 1), ("TT3", 1), ("@alnum", 186)]),
        ("linear-api-key", &[("lin", 1), ("_api_", 1), ("@alnum", 40)]),
        ("notion-api-token", &[("nt", 1), ("n_", 1), ("@digits", 11), ("@alnum", 35)]),
        ("postman-api-token", &[("PM", 1), ("AK-", 1), ("@hex", 24), ("-", 1), ("@hex", 34)]),
        ("figma-token", &[("fi", 1), ("gd_", 1), ("@alnum", 40)]),
        ("prefect-api-token", &[("pn", 1), ("u_", 1), ("@alnum", 36)]),
        ("netlify-token", &[("nf", 1), ("p_", 1), ("@alnum", 36)]),
        ("grafana-token", &[("gl", 1), ("sa_", 1), ("@alnum", 32), ("_", 1), ("@HEX", 8)]),
        ("sentry-token", &[("sntr", 1), ("yu_", 1), ("@hex", 64)]),
        ("new-relic-user-api-key", &[("NR", 1), ("AK-", 1), ("@upper", 27)]),
        ("dynatrace-api-token", &[("dt0", 1), ("c01.", 1), ("@upper", 24), (".", 1), ("@upper", 64)]),
        ("sendgrid-api-token", &[("S", 1), ("G.", 1), ("@alnum", 22), (".", 1), ("@alnum", 43)]),
        ("sendinblue-api-token", &[("xkey", 1), ("sib-", 1), ("@hex", 64), ("-", 1), ("@alnum", 16)]),
        ("mailchimp-api-key", &[("@hex", 32), ("-u", 1), ("s14", 1)]),
        ("mailgun-private-api-token", &[("ke", 1), ("y-", 1), ("@hex", 32)]),
        ("twilio-api-key", &[("S", 1), ("K", 1), ("@hex", 32)]),
        ("slack-token", &[("xo", 1), ("xb-", 1), ("@digits", 12), ("-", 1), ("@digits", 13), ("-", 1), ("@alnum", 24)]),
        ("slack-token", &[("xa", 1), ("pp-1-", 1), ("@upper", 11), ("-", 1), ("@digits", 13), ("-", 1), ("@lower", 64)]),
        ("telegram-bot-api-token", &[("@digits", 10), (":A", 1), ("A", 1), ("@alnum", 33)]),
        ("stripe-access-token", &[("sk_", 1), ("live_", 1), ("@alnum", 24)]),
        ("stripe-webhook-secret", &[("wh", 1), ("sec_", 1), ("@alnum", 32)]),
        ("square-token", &[("sq0", 1), ("atp-", 1), ("@alnum", 22)]),
        ("shopify-token", &[("shp", 1), ("at_", 1), ("@hex", 32)]),
        ("shippo-api-token", &[("shippo", 1), ("_live_", 1), ("@hex", 40)]),
        ("easypost-api-token", &[("EZ", 1), ("AK", 1), ("@alnum", 54)]),
        ("adobe-client-secret", &[("p8", 1), ("e-", 1), ("@alnum", 32)]),
        ("maxmind-license-key", &[("@alnum", 6), ("_", 1), ("@alnum", 29), ("_m", 1), ("mk", 1)]),
        ("airtable-personnal-access-token", &[("pa", 1), ("t", 1), ("@alnum", 14), (".", 1), ("@hex", 64)]),
        ("jwt", &[("ey", 1), ("J", 1), ("@alnum", 33), (".ey", 1), ("J", 1), ("@alnum", 50), (".", 1), ("@alnum", 43)]),
    ];
    let mut all: Vec<_> = alone.iter().map(|(rule, pieces)| (*rule, "it is ".to_owned(), make(pieces), " indeed".to_owned())).collect();
    let token = make(&[("@alnum", 40)]);
    let password = make(&[("S3", 1), ("cr!t", 1)]);
    let within: &[(&str, &str, String, &str)] = &[
        ("aws-secret-access-key", "aws_secret_access_key = ", token.clone(), "\n"),
        ("aws-secret-access-key", "{\"SecretAccessKey\": \"", token.clone(), "\"}"),
        ("aws-session-token", "export AWS_SESSION_TOKEN=", make(&[("@alnum", 180), ("==", 1)]), "\n"),
        ("azure-storage-key", "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=", make(&[("@alnum", 86), ("==", 1)]), ";Endpoint"),
        ("azure-shared-access-key", "SharedAccessKeyName=Root;SharedAccessKey=", make(&[("@alnum", 43), ("=", 1)]), ""),
        ("azure-shared-access-signature", "https://a.blob.core.windows.net/c?sv=2022&sig=", make(&[("@alnum", 43), ("%3D", 1)]), "&se=2"),
        ("npmrc-auth", "//registry.example.org/:_authToken=", token.clone(), "\n"),
        (
            "slack-webhook-url",
            "https://hooks.slack.com/services/",
            make(&[("T", 1), ("@upper", 10), ("/B", 1), ("@upper", 10), ("/", 1), ("@alnum", 24)]),
            "",
        ),
        ("discord-webhook-url", "https://discord.com/api/webhooks/123456789012345678/", make(&[("@alnum", 68)]), ""),
        ("authorization", "curl -H 'Authorization: Bearer ", token.clone(), "' https://x.org"),
        ("authorization", "authorization: Basic ", make(&[("@alnum", 24), ("==", 1)]), "\r\n"),
        ("authorization", "{\"Authorization\":\"token ", token.clone(), "\"}"),
        ("authorization", ".header(\"Authorization\", \"Bearer ", token.clone(), "\")"),
        ("authorization", "Authorization: AWS4-HMAC-SHA256 ", format!("Credential={}/20261128/x", make(&[("@base32", 20)])), ", Signed"),
        ("bearer-token", "send it as Bearer ", token.clone(), " then"),
        ("api-key-header", "x-api-key: ", token.clone(), "\n"),
        ("api-key-header", "\"PRIVATE-TOKEN\": \"", token.clone(), "\""),
        ("url-password", "postgres://app:", password.clone(), "@db.internal:5432/app"),
        ("url-password", "mongodb+srv://app:", password.clone(), "@cluster0.example.org/x"),
        ("url-password", "http://me:", format!("p@{password}"), "@localhost:9999/"),
        ("url-password", "redis://:", password.clone(), "@127.0.0.1"),
        ("url-password", "https://x-access-token:", token.clone(), "@github.com/a/b.git"),
        ("url-password", "amqp://guest:", make(&[("%40", 1), ("pass", 1), ("%20w", 1)]), "@[::1]:5672/"),
        ("connection-string-password", "Server=tcp:db;Database=x;User ID=a;Password=", password.clone(), ";Encrypt=True"),
        ("connection-string-password", "Driver={ODBC};server=db;uid=a;pwd=", password.clone(), ""),
        ("libpq-password", "host=db port=5432 user=app password=", password.clone(), " dbname=x"),
        ("client-password-variable", "PGPASSWORD=", password.clone(), " psql -h db"),
        ("client-password-variable", "export MYSQL_PWD='", password.clone(), "'"),
        ("netrc-password", "machine example.org login me password ", password.clone(), "\n"),
        ("url-password", "postgres://app:", make(&[("@alnum", 700)]), "@db/x"),
        ("url-password", "postgres://app:", format!("${password}!"), "@db/x"),
        ("url-password", "postgres://app:", format!("({password}"), "@db/x"),
        ("url-password", "postgres://app:", format!("${{A}}{password}"), "@db/x"),
        ("connection-string-password", "Server='a;b';User Id=u;Password='", format!("a {password};''"), "';Encrypt=True"),
        ("connection-string-password", "Server=\"a\"; User Id=u; Password=\"", format!("a {password};'"), "\";Encrypt=True"),
        ("libpq-password", "host=db user='a b' password='", format!("a {password}\\'b"), "' dbname=x"),
        ("libpq-password", "host = db password = ", password.clone(), ""),
        ("client-password-variable", "PGPASSWORD='", format!("a {password}"), "' psql"),
        ("client-password-variable", "export PGPASSWORD=\"", format!("a {password}"), "\" && psql"),
        ("authorization", "Authorization: Basic ", make(&[("dXNlcjpw", 1), ("YXNz", 1)]), "\r\n"),
        ("authorization", "Authorization: SSWS ", make(&[("00", 1), ("@alnum", 40)]), "\n"),
        ("authorization", "-H 'Authorization: Negotiate ", make(&[("YII", 1), ("@alnum", 300), ("==", 1)]), "'"),
        ("authorization", "{\"name\":\"Authorization\",\"value\":\"Basic ", make(&[("dXNlcjpw", 1), ("YXNz", 1)]), "\"}"),
        ("authorization", "{ \"name\": \"Authorization\", \"value\": \"", token, "\" }"),
    ];
    all.extend(within.iter().map(|(rule, before, secret, after)| (*rule, (*before).to_owned(), secret.clone(), (*after).to_owned())));
    all
}

/// A name, and a text in a dress.
type Dress = (&'static str, fn(&str) -> String);

fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

/// The JSON that comes out, and the rules that were counted.
fn redacted(secrets: &Secrets, json: &str) -> (String, Vec<(String, u64)>) {
    match secrets.redact(json) {
        None => (json.to_owned(), Vec::new()),
        Some(redacted) => {
            assert_eq!(secrets.redact(&redacted.json), None, "it is at peace with its own work: {}", redacted.json);
            (redacted.json, redacted.replaced.iter().map(|replaced| (replaced.rule.clone().into_owned(), replaced.count)).collect())
        }
    }
}

#[test]
fn every_shape_is_found_in_every_dress() {
    let redactor = Secrets::new();
    let all = secrets();
    assert!(all.len() >= 100, "{}", all.len());
    for (rule, before, secret, after) in &all {
        let text = format!("{before}{secret}{after}");
        let wanted = format!("{before}{}{after}", mark(rule));
        let dresses: [Dress; 7] = [
            ("a string", quoted),
            ("a key", |text| format!("{{{}:1.0}}", quoted(text))),
            ("JSON in JSON", |text| format!("[1,{}]", quoted(&format!("{{\"k\":{}}}", quoted(text))))),
            ("JSON in JSON in JSON", |text| quoted(&quoted(&quoted(text)))),
            ("lines", |text| quoted(&format!("first\n{text}\nlast"))),
            ("lines, five levels down", |text| (0..5).fold(format!("first\n{text}\nlast"), |text, _| quoted(&text))),
            ("slashes escaped", |text| quoted(text).replace('/', "\\/")),
        ];
        for (name, dress) in dresses {
            let (json, counts) = redacted(&redactor, &dress(&text));
            assert_eq!(json, dress(&wanted), "{rule} in {name}");
            assert_eq!(counts, [((*rule).to_owned(), 1)], "{rule} in {name}");
        }
    }
    // Every rule has a row, but for those that have tests of their own.
    let rows: std::collections::HashSet<_> = all.iter().map(|(rule, ..)| *rule).collect();
    let missing: Vec<_> = Secrets::rule_ids().filter(|id| !rows.contains(id)).collect();
    assert_eq!(missing, ["private-key", "putty-private-key", "microsoft-teams-webhook"]);
}

#[test]
fn tokens_are_found_behind_colours_and_needless_escapes() {
    let redactor = Secrets::new();
    for (rule, before, secret, after) in secrets().into_iter().filter(|(_, before, ..)| before == "it is ") {
        let coloured = redacted(&redactor, &quoted(&format!("{before}\u{1b}[01;31m{secret}\u{1b}[m{after}"))).0;
        if rule != "azure-ad-client-secret" {
            assert_eq!(coloured, quoted(&format!("{before}\u{1b}[01;31m{}\u{1b}[m{after}", mark(rule))));
        }
        let hidden: String = secret.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect();
        assert_eq!(redacted(&redactor, &format!("\"{before}{hidden}{after}\"")).0, format!("\"{before}{}{after}\"", mark(rule)), "{rule}");
        for code in ["%20", "%3D", "%253D", "=3D", "\\x3d", "\\X3D%3A"] {
            let (json, wanted) = (quoted(&format!("x{code}{secret} y")), quoted(&format!("x{code}{} y", mark(rule))));
            assert!(redacted(&redactor, &json).0 == wanted || rule == "azure-ad-client-secret", "{rule} behind {code}");
        }
        for around in ["\"", "'", "`", "(", "=", ":", ",", "\\", "|", "<", ">", "/", "é", "→"] {
            let (json, counts) = redacted(&redactor, &quoted(&format!("x{around}{secret}{around}y")));
            // This one is told by what stands around it.
            assert!(json.contains(&mark(rule)) || rule == "azure-ad-client-secret", "{rule} between {around}: {counts:?}");
        }
    }
}

fn pem(label: &str, lines: usize) -> String {
    let body: String = (0..lines).map(|n| format!("{}\n", fill(&ALNUM[n % 10..], 64))).collect();
    format!("-----BEGIN {label}PRIVATE KEY-----\n{body}{}=\n-----END {label}PRIVATE KEY-----", fill(ALNUM, 23))
}

#[test]
fn private_keys_are_found_whole() {
    let redactor = Secrets::new();
    let key = mark("private-key");
    let ed25519 = format!("-----BEGIN {0}\n{1}\n-----END {0}", "PRIVATE KEY-----", fill(ALNUM, 64));
    let encrypted = pem("RSA ", 12).replace("KEY-----\na", "KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,A3B9C7D1\n\na");
    let pgp = pem("PGP ", 20).replace("PRIVATE KEY-----", "PRIVATE KEY BLOCK-----");
    for pem in [pem("RSA ", 24), pem("EC ", 2), pem("", 26), pem("OPENSSH ", 5), pem("ENCRYPTED ", 28), ed25519, encrypted, pgp] {
        for text in [pem.clone(), pem.replace('\n', "\r\n"), pem.replace('\n', "\\n")] {
            let (text, wanted) = (format!("key:\n{text}\nend"), format!("key:\n{key}\nend"));
            assert_eq!(redacted(&redactor, &quoted(&text)), (quoted(&wanted), vec![("private-key".to_owned(), 1)]));
            assert_eq!(redacted(&redactor, &quoted(&quoted(&quoted(&text)))).0, quoted(&quoted(&quoted(&wanted))));
        }
        // As an agent's tool shows it: with numbers, as a diff, in source code.
        let numbered: String = pem.lines().enumerate().map(|(at, line)| format!("{:>6}→{line}\n", at + 1)).collect();
        assert_eq!(redacted(&redactor, &quoted(&numbered)).0, quoted(&format!("     1→{key}\n")));
        let diff: String = pem.lines().map(|line| format!("+{line}\n")).collect();
        assert_eq!(redacted(&redactor, &quoted(&diff)).0, quoted(&format!("+{key}\n")));
        let code: String = pem.lines().map(|line| format!("  '{line}\\n' +\n")).collect();
        assert_eq!(redacted(&redactor, &quoted(&code)).0, quoted(&format!("  '{key}\\n' +\n")));
        // A notebook has a string a line: each is replaced, and the form stays.
        let lines: Vec<String> = pem.lines().map(|line| format!("{line}\n")).collect();
        let notebook: Vec<String> = serde_json::from_str(&redacted(&redactor, &serde_json::to_string(&lines).unwrap()).0).unwrap();
        let is_kept = |line: &str| ["Proc-Type", "DEK-Info", "\n"].iter().any(|begin| line.starts_with(begin));
        let wanted: Vec<String> = lines.iter().map(|line| if is_kept(line) { line.clone() } else { format!("{key}\n") }).collect();
        assert_eq!(notebook, wanted);
    }
    // Cut by `head -5`, and by a tool that shows only so much.
    let cut: Vec<String> = pem("RSA ", 24).lines().take(5).map(str::to_owned).collect();
    assert_eq!(redacted(&redactor, &quoted(&format!("{}\n$ ls", cut.join("\n")))).0, quoted(&format!("{key}\n$ ls")));
    assert_eq!(redacted(&redactor, &quoted(&format!("{}... (cut)", &pem("", 24)[..500]))).0, quoted(&format!("{key}... (cut)")));
    let putty = format!("Private-Lines: 2\n{}\n{}\nPrivate-MAC: ab", fill(ALNUM, 64), fill(ALNUM, 40));
    assert_eq!(redacted(&redactor, &quoted(&putty)).0, quoted(&format!("Private-Lines: 2\n{}Private-MAC: ab", mark("putty-private-key"))));
}

/// A line as Claude Code has it: what a model said, what it does, what it said then.
fn said(first: &str, signature: &str, then: &str) -> String {
    format!(
        "{{\"type\":\"assistant\",\"message\":{{\"content\":[{{\"type\":\"thinking\",\"thinking\":{},\"signature\":\"{signature}\"}},\
         {{\"type\":\"tool_use\",\"id\":\"toolu_01A09q90qw90lq917835lq9\",\"name\":\"Bash\",\"input\":{{\"command\":\"rm x\"}}}},\
         {{\"type\":\"text\",\"text\":{}}}]}}}}",
        quoted(first),
        quoted(then)
    )
}

#[test]
fn a_key_in_several_strings_takes_nothing_else_with_it() {
    let (redactor, key) = (Secrets::new(), mark("private-key"));
    let pem = pem("RSA ", 24);
    let [begin, end] = ["BEGIN", "END"].map(|what| format!("-----{what} RSA PRIVATE KEY-----"));
    for signature in [300, 64].map(|len| fill(&ALNUM[3..], len)) {
        // Mentions of its first and last line.
        for line in [
            said(&format!("search for {begin} first"), &signature, &format!("then for {end}")),
            said(&format!("search for {begin} and {end}"), &signature, "then"),
            said(&format!("{begin}\n of a key"), &signature, &end),
        ] {
            for json in [line.clone(), quoted(&line), quoted(&quoted(&line))] {
                assert_eq!(redacted(&redactor, &json), (json.clone(), Vec::new()));
            }
        }
    }
    // One that was cut in two, in the middle of a line too. What is done in between stays to be seen.
    let signature = fill(&ALNUM[5..], 300);
    let first = begin.len();
    for at in [first, first + 1, first + 20, first + 66, pem.len() / 2, pem.len() / 2 + 7, pem.len() - 80] {
        let line = said(&format!("it is\n{}", &pem[..at]), &signature, &format!("{}\nand so on", &pem[at..]));
        for levels in 0..3 {
            let dressed = (0..levels).fold(line.clone(), |line, _| quoted(&line));
            let mut json = redacted(&redactor, &dressed).0;
            (0..levels).for_each(|_| json = serde_json::from_str(&json).unwrap());
            let rest = json.replace(&signature, "");
            assert!((0..24).all(|n| !rest.contains(&ALNUM[n % 10..][..24])), "cut at {at}: {json}");
            let marks = json.replace(&format!("{key}\\n"), &key).replace(&format!("{key}\\n"), &key);
            let wanted = said(&format!("it is\n{key}"), &signature, &format!("{key}\nand so on"));
            let form = |json: &str| serde_json::from_str::<serde_json::Value>(json).unwrap()["message"]["content"].clone();
            let (found, wanted) = (form(&marks), form(&wanted));
            assert_eq!(
                (&found[0]["type"], &found[0]["signature"], &found[1], &found[2]["type"]),
                (&wanted[0]["type"], &wanted[0]["signature"], &wanted[1], &wanted[2]["type"]),
                "cut at {at}: {json}"
            );
            assert!(found[0]["thinking"].as_str().unwrap().starts_with(&format!("it is\n{key}")), "{json}");
        }
    }
    // In two parts that follow each other.
    let parts = |one: &str, other: &str| {
        format!("[{{\"type\":\"text\",\"text\":{}}},{{\"type\":\"text\",\"text\":{}}}]", quoted(one), quoted(other))
    };
    let at = pem.len() / 2;
    let (json, counts) = redacted(&redactor, &parts(&pem[..at], &pem[at..]));
    assert_eq!((json, counts), (parts(&key, &key), vec![("private-key".to_owned(), 2)]));
    // Names of fields that look like one of its lines.
    let fields = format!("{{\"a\":{},\"{}\":1,\"b\":\"{end}\"}}", quoted(&format!("{begin}\n{}", fill(ALNUM, 64))), fill(&ALNUM[4..], 40));
    assert_eq!(redacted(&redactor, &fields).0, format!("{{\"a\":\"{key}\",\"{}\":1,\"b\":\"{end}\"}}", fill(&ALNUM[4..], 40)));
}

/// What agents write that is no secret; without the carets, which hide some of it from what scans this repository.
fn harmless() -> Vec<String> {
    let hex = fill(HEX, 64);
    let png = format!("data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAA{}", fill(&format!("{ALNUM}+/EAAASKAAAA"), 4000));
    [
        &hex,
        "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg==",
        "550e8400-e29b-41d4-a716-446655440000",
        "evt_01JD8M6Q9Z4N7R2T5V8X1Y3W6K",
        "trc_01JD8M6Q9Z4N7R2T5V8X1Y3W6K",
        "ldg_01JD8M6Q9Z4N7R2T5V8X1Y3W6K",
        "key_9f86d081884c7d659a2feaa0c55ad015",
        "toolu_01A09q90qw90lq917835lq9",
        "msg_01XFDUDYJgAACzvnptvVoYEL",
        "call_62136354-7d0f-4f7b-9d5a-5d0e3f1a2b3c",
        "req_011CQeXzTfvR6T2VYs3mWcVD",
        &png,
        "https://example.org/path?token=abc#frag",
        "https://user@example.org:8443/x",
        "ssh://git@github.com:22/a/b.git",
        "git@github.com:a/b.git",
        "http://[::1]:8080/a@b",
        "see http://localhost:3000/@scope/pkg and me@example.org",
        "postgres://$USER:$PASSWORD@localhost/db",
        "postgres://user:{password}@localhost/db",
        "mysql://user:<password>@host/db",
        "postgres://app:***@db/x",
        "postgres://app:%s@db/x",
        "Authorization: Bearer $TOKEN",
        "Authorization: Bearer <token>",
        "the Authorization: header carries a bearer authentication-scheme-name-here",
        "use Bearer authentication and bearer tokens for everything-in-this-service",
        "headers['Authorization'] = f'Bearer {token}'",
        "if pem.starts_with(\"-----BEG^IN PRIVATE KEY-----\") && pem.ends_with(\"-----END PRIVATE KEY-----\") { parse_private_key_from_pem_block(pem) }",
        "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----",
        "-----BEGIN CERTIFICATE-----\nMIIDdzCCAl+gAwIBAgIEAgAAuTANBgkqhkiG9w0BAQUFADBaMQswCQYDVQQGEwJJ\n-----END CERTIFICATE-----",
        "-----BEG^IN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE me@host",
        "AK^IAIOSFODNN7EXAMPLE",
        "aws_secret_access_key = wJal^rXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "SKILLS SKIPPED sk-learn sk-estimator-html-doc-link sk-parallel-item sk_test_ ghp_ xoxb- npm_config_registry npm_lifecycle_event",
        "password: correct horse, pwd=/home/me, PASSWORD_HASHERS = [...]",
        "ey^JhbGciOiJub25lIn0.eyJub3QiOiJzaWduZWQifQ.",
        "let hf_hub = hf_hub_download(repo); glpat_token; pul-request; AIzawa; dapi; cio; cioAsync; io::Error",
        "monkey-keyboard key-value key-1234 -us -us-east-1 a-us1 s3://bucket.us-east-1.amazonaws.com",
        "12:34:56:AA:BB:CC 10.0.0.1:aa 2001:db8::aa",
        "Content-Type: application/json; charset=utf-8",
        "host=db port=5432 user=app sslmode=require",
        "Server=db;Database=x;Trusted_Connection=True",
        "C:\\Users\\me\\AppData\\Local\\Temp\\ghp_x",
        "/usr/lib/python3.11/site-packages/secrets.py: SECRET^_KEY = os.environ['SECRET_KEY']",
        "features = [\"Win32_Security_Authorization\", \"Win32_System_Threading\"]",
        "machine learning login page password reset",
        "x-api-key: ${API_KEY}",
        "postgres://app:${PASSWORD}@db/x and postgres://app:$(pass)@db/x and postgres://app:${A}-${B}@db/x",
        "postgres://app:$PASSWORD.@db/x postgres://app:$env:PG_PASSWORD@db/x postgres://app:(hidden)@db/x",
        "PGPASSWORD=$(cat file) PGPASSWORD=\"$(cat file)\" PGPASSWORD='${PW}' PGPASSWORD=\"$PW\" PGPASSWORD=`cat file`",
        "(export PGPASSWORD=$PW; psql) && PGPASSWORD=${PW:-none} psql",
        "'Server=a;Password='+pw+';Encrypt=True' and \"Server=a;Password=\" + pw + \";Encrypt=True\"",
        "\"Server=a;Password=\" & pw & \";\" and 'Server=a;Password=' . $pw . ';' and \"Server=a;Pwd=%s\" % pw + \";\"",
        "\"host=a password='\" + pw + \"'\" and 'host=a password=' || pw || ''",
        "Server=a;Password='';Password=\"\";Password=<yours>",
        "{\"a\":\"Server=x;Password=\",\"b\":\"host=a password=\",\"c\":\"PGPASSWORD=\",\"d\":\"more of it\"}",
        "host=a user=b password='' dbname=c password='$PW'",
        "Authorization: Basic Authentication, Authorization: Negotiate, Authorization: Basic realm=\"restricted\"",
        "{\"name\":\"Authorization\",\"value\":\"Bearer <token>\"} {\"name\":\"Authorization\",\"value\":\"required-header\"}",
        "a=3Dghp_ b%20sk-learn c\\x20key-value %3Dhf_hub",
        "[redacted:jwt] [redacted:url-password]",
    ]
    .iter()
    .map(|text| text.replace('^', ""))
    .collect()
}

#[test]
fn nothing_else_is_touched() {
    let redactor = Secrets::new();
    let all = harmless();
    assert!(all.len() >= 45);
    for text in &all {
        for json in [quoted(text), quoted(&quoted(text)), format!("{{\"out\":{},\"n\":1e400}}", quoted(text))] {
            assert_eq!(redacted(&redactor, &json), (json.clone(), Vec::new()), "{text}");
        }
    }
    // Nor by what stands together.
    let together = quoted(&all.join("\n"));
    assert_eq!(redacted(&redactor, &together), (together.clone(), Vec::new()));
}

#[test]
fn every_password_of_a_text_is_found() {
    let redactor = Secrets::new();
    let [one, other] = ["S3cr!t", "0th3r"].map(str::to_owned);
    let texts: [fn(&str, &str) -> String; 6] = [
        |one, other| format!("Server=a;User Id=u;Password={one};Server=b;User Id=v;Password={other}"),
        |one, other| format!("Server=a;Password='{one}';Timeout=3;Server=b;User Id=v;Pwd=\"{other}\";"),
        |one, other| format!("host=a user=u password={one} host=b port=5432 password={other} dbname=x"),
        |one, other| format!("host=a password='{one}' host=b password={other}"),
        |one, other| format!("Server=a;Password=$PW;Server=c;Password={one};\nServer=b;Password={other}"),
        |one, other| format!("PGPASSWORD={one} psql && PGPASSWORD='{other} x' psql").replace(" x'", "'"),
    ];
    for text in texts {
        let json = quoted(&text(&one, &other));
        let (found, counts) = redacted(&redactor, &json);
        let rule = &counts[0].0;
        assert_eq!((found, counts[0].1), (quoted(&text(&mark(rule), &mark(rule))), 2));
    }
}

#[test]
fn several_in_one_payload_are_counted_by_rule() {
    let redactor = Secrets::new();
    let (aws, github) = (make(&[("AK", 1), ("IA", 1), ("@base32", 16)]), make(&[("gh", 1), ("p_", 1), ("@alnum", 36)]));
    let json = format!("{{\"a\":\"{aws} {aws}\",\"b\":[\"Authorization: Bearer {github}\",{{\"c\":\"https://u:{github}@h\"}}]}}");
    let (json, counts) = redacted(&redactor, &json);
    let (aws, github) = (mark("aws-access-token"), mark("github-token"));
    assert_eq!(json, format!("{{\"a\":\"{aws} {aws}\",\"b\":[\"Authorization: Bearer {github}\",{{\"c\":\"https://u:{github}@h\"}}]}}"));
    assert_eq!(counts, [("aws-access-token".to_owned(), 2), ("github-token".to_owned(), 2)]);
}
