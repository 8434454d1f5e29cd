//! The shapes that are known, as data. Called by `secrets`. Pure.
//!
//! What a shape is (its fixed beginning, its digits, its length) is what its vendor documents, compared with gitleaks'
//! configuration at commit b58d3f102cf3 (v8.30.0 and 27 commits); the expressions are this project's own, and where gitleaks
//! has the same shape, the id is the same, so that it can be looked up there. No crate gives such rules to a library: those
//! that there are want a C++ engine, or find only where a key begins.
//!
//! A shape is here only where it can be told from other text by itself, or by the words just before it. Order matters: of two
//! rules that find the same bytes the earlier one names it, so what tells more stands first.
//!
//! To add one: a fixed text that is in each of its secrets (lower case; case is not looked at), an expression without look
//! around, a row in the table of tests/redact_shapes.rs.

/// What is looked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    /// A token that tells itself. A word boundary is wanted before it (or the end of a terminal's colour).
    Token(&'static str),
    /// The groups of this expression, of which one is found at a time: what stands around it tells it.
    Within(&'static str),
    /// A private key in PEM armour.
    Pem,
}

/// What is asked of the text besides its shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Nothing,
    /// Is no vendor's example: doesn't end in `EXAMPLE` or `EXAMPLEKEY`.
    NoExample,
    /// Has a digit and a letter, as words have not, and is no placeholder; or is a name and a password in base64.
    Mixed,
    /// Is no placeholder: all of it `$NAME`, `${…}`, `$(…)` or `(…)`; `{name}`, `<name>`, `%s`, `xxxx`; or no letter and no digit.
    Literal,
}

/// A rule.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    pub id: &'static str,
    /// Each of its secrets has one of these in it or just before it.
    pub keywords: &'static [&'static str],
    pub shape: Shape,
    pub ask: Ask,
}

const fn token(id: &'static str, keywords: &'static [&'static str], expression: &'static str) -> Rule {
    Rule { id, keywords, shape: Shape::Token(expression), ask: Ask::Nothing }
}

const fn within(id: &'static str, keywords: &'static [&'static str], expression: &'static str, ask: Ask) -> Rule {
    Rule { id, keywords, shape: Shape::Within(expression), ask }
}

/// All of them.
pub(crate) const RULES: &[Rule] = &[
    Rule { id: "private-key", keywords: &["-----begin"], shape: Shape::Pem, ask: Ask::Nothing },
    within("putty-private-key", &["private-lines:"], r"Private-Lines: [0-9]+\s+((?:[A-Za-z0-9+/=]{16,80}\s*)+)", Ask::Nothing),
    token("age-secret-key", &["age-secret-key-1"], r"AGE-SECRET-KEY-1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58}"),
    // Clouds.
    Rule {
        id: "aws-access-token",
        keywords: &["akia", "asia", "abia", "acca"],
        shape: Shape::Token(r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b"),
        ask: Ask::NoExample,
    },
    within(
        "aws-secret-access-key",
        &["secretaccesskey", "secret_access_key", "secret_key", "secret access key"],
        r#"(?i)(?:secret_?access_?key|aws_secret_key|secret access key)[\s"'`:=>,\\]{1,8}([a-z0-9/+]{40})(?:[^a-z0-9/+=]|$)"#,
        Ask::NoExample,
    ),
    within(
        "aws-session-token",
        &["sessiontoken", "session_token", "security_token"],
        r#"(?i)(?:session_?token|security_token)[\s"'`:=>,\\]{1,8}([a-z0-9/+]{100,}={0,2})"#,
        Ask::Nothing,
    ),
    token("aws-amazon-bedrock-api-key-long-lived", &["absk"], r"ABSK[A-Za-z0-9+/]{109,269}={0,2}"),
    token("gcp-api-key", &["aiza"], r"AIza[A-Za-z0-9_-]{35,}"),
    token("gcp-oauth-client-secret", &["gocspx-"], r"GOCSPX-[A-Za-z0-9_-]{28,}"),
    token("gcp-oauth-access-token", &["ya29."], r"ya29\.[A-Za-z0-9_.-]{30,}"),
    within("azure-storage-key", &["accountkey="], r"(?i)AccountKey=([a-z0-9+/]{86}==)", Ask::Nothing),
    within("azure-shared-access-key", &["sharedaccesskey="], r"(?i)SharedAccessKey=([a-z0-9+/]{43}=)", Ask::Nothing),
    within("azure-shared-access-signature", &["sig="], r"(?i)[?&;]sig=([a-z0-9%/+]{43,64}(?:%3d|=))", Ask::Nothing),
    within(
        "azure-ad-client-secret",
        &["q~"],
        r#"(?:^|[\\'"`\s>=:(,)])([A-Za-z0-9_~.]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,34})(?:$|[\\'"`\s<),])"#,
        Ask::Nothing,
    ),
    token("alibaba-access-key-id", &["ltai"], r"LTAI[A-Za-z0-9]{20}\b"),
    token("digitalocean-access-token", &["doo_v1_", "dop_v1_", "dor_v1_"], r"do[opr]_v1_[a-f0-9]{64}\b"),
    token("cloudflare-origin-ca-key", &["v1.0-"], r"v1\.0-[a-f0-9]{24}-[a-f0-9]{146}\b"),
    token("heroku-api-key-v2", &["hrku-aa"], r"HRKU-AA[A-Za-z0-9_-]{58,}"),
    token("flyio-access-token", &["fo1_", "fm1a_", "fm1r_", "fm2_"], r"(?:fo1_[A-Za-z0-9_-]{43,}|fm(?:1[ar]|2)_[A-Za-z0-9+/]{100,}={0,3})"),
    token("databricks-api-token", &["dapi"], r"dapi[a-f0-9]{32}(?:-[0-9])?\b"),
    token("planetscale-token", &["pscale_"], r"pscale_(?:tkn|oauth|pw)_[A-Za-z0-9_=.-]{32,64}"),
    token("supabase-token", &["sbp_", "sb_secret_"], r"(?:sbp_[a-f0-9]{40}|sb_secret_[A-Za-z0-9_-]{22,})\b"),
    token("pulumi-api-token", &["pul-"], r"pul-[a-f0-9]{40}\b"),
    token("hashicorp-tf-api-token", &[".atlasv1."], r"[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_=-]{60,70}"),
    token("vault-token", &["hvs.", "hvb.", "hvr."], r"hv[sbr]\.[A-Za-z0-9_-]{24,300}"),
    token(
        "doppler-api-token",
        &["dp.pt.", "dp.st.", "dp.ct.", "dp.sa."],
        r"dp\.(?:pt|ct|sa|st(?:\.[a-z0-9_-]{2,35})?)\.[A-Za-z0-9]{40,44}\b",
    ),
    token("tailscale-key", &["tskey-"], r"tskey-[a-z]{2,12}-[A-Za-z0-9]{8,24}-[A-Za-z0-9]{16,64}"),
    token("openshift-user-token", &["sha256~"], r"sha256~[A-Za-z0-9_-]{43,}"),
    token("1password-secret-key", &["a3-"], r"A3-[A-Z0-9]{6}-(?:[A-Z0-9]{11}|[A-Z0-9]{6}-[A-Z0-9]{5})(?:-[A-Z0-9]{5}){3}\b"),
    token("1password-service-account-token", &["ops_eyj"], r"ops_eyJ[A-Za-z0-9+/]{250,}={0,3}"),
    // Models.
    token("anthropic-api-key", &["sk-ant-"], r"sk-ant-[a-z]{2,8}[0-9]{2}-[A-Za-z0-9_-]{32,}"),
    token("openai-api-key", &["t3blbkfj", "sk-proj-", "sk-svcacct-", "sk-admin-"], OPENAI),
    token("openrouter-api-key", &["sk-or-v1-"], r"sk-or-v1-[a-f0-9]{64}\b"),
    token("huggingface-access-token", &["hf_", "api_org_"], r"(?:hf|api_org)_[A-Za-z]{34}\b"),
    token("perplexity-api-key", &["pplx-"], r"pplx-[A-Za-z0-9]{48}\b"),
    token("groq-api-key", &["gsk_"], r"gsk_[A-Za-z0-9]{52}\b"),
    token("xai-api-key", &["xai-"], r"xai-[A-Za-z0-9]{80}\b"),
    token("replicate-api-token", &["r8_"], r"r8_[A-Za-z0-9]{37}\b"),
    // Code and packages.
    token("github-token", &["ghp_", "gho_", "ghu_", "ghs_", "ghr_"], r"gh[pousr]_[A-Za-z0-9]{36,251}"),
    token("github-fine-grained-pat", &["github_pat_"], r"github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59,}"),
    token("gitlab-token", &["glpat-", "gldt-", "glrt-", "glcbt-", "glptt-", "glft-", "glimt-", "glagent-", "gloas-", "glsoat-"], GITLAB),
    token("npm-access-token", &["npm_"], r"npm_[A-Za-z0-9]{36}\b"),
    within("npmrc-auth", &["_authtoken", "_auth="], r#"_auth(?:Token)?\s*=\s*["']?([^\s"'\\]{8,})"#, Ask::Literal),
    token("pypi-upload-token", &["pypi-ageichlwas5vcmc"], r"pypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{50,1000}"),
    token("rubygems-api-token", &["rubygems_"], r"rubygems_[a-f0-9]{48}\b"),
    token("crates-io-token", &["cio"], r"cio[A-Za-z0-9]{32}\b"),
    token("clojars-api-token", &["clojars_"], r"CLOJARS_[a-z0-9]{60}\b"),
    token("docker-token", &["dckr_pat_", "dckr_oat_"], r"dckr_[po]at_[A-Za-z0-9_-]{27,}"),
    token("artifactory-api-key", &["akcp"], r"AKCp[A-Za-z0-9]{69}\b"),
    token("sourcegraph-access-token", &["sgp_"], r"sgp_(?:(?:[A-Fa-f0-9]{16}|local)_)?[A-Fa-f0-9]{40}\b"),
    token("atlassian-api-token", &["atatt3"], r"ATATT3[A-Za-z0-9_=-]{100,250}"),
    token("linear-api-key", &["lin_api_"], r"lin_api_[A-Za-z0-9]{40}\b"),
    token("notion-api-token", &["ntn_"], r"ntn_[0-9]{11}[A-Za-z0-9]{35}\b"),
    token("postman-api-token", &["pmak-"], r"PMAK-[A-Fa-f0-9]{24}-[A-Fa-f0-9]{34}\b"),
    token("figma-token", &["figd_"], r"figd_[A-Za-z0-9_-]{40,}"),
    token("prefect-api-token", &["pnu_"], r"pnu_[A-Za-z0-9]{36}\b"),
    token("netlify-token", &["nfp_"], r"nfp_[A-Za-z0-9]{36}\b"),
    // Watching, mail, chat, money.
    token("grafana-token", &["glc_", "glsa_"], r"(?:glc_[A-Za-z0-9+/]{32,400}={0,3}|glsa_[A-Za-z0-9]{32}_[A-Fa-f0-9]{8}\b)"),
    token("sentry-token", &["sntrys_", "sntryu_"], r"(?:sntryu_[a-f0-9]{64}\b|sntrys_eyJ[A-Za-z0-9+/=_]{40,})"),
    token("new-relic-user-api-key", &["nrak-"], r"NRAK-[A-Z0-9]{27}\b"),
    token("dynatrace-api-token", &["dt0c01."], r"dt0c01\.[A-Za-z0-9]{24}\.[A-Za-z0-9]{64}\b"),
    token("sendgrid-api-token", &["sg."], r"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43,}"),
    token("sendinblue-api-token", &["xkeysib-"], r"xkeysib-[a-f0-9]{64}-[A-Za-z0-9]{16}\b"),
    token("mailchimp-api-key", &["-us"], r"[a-f0-9]{32}-us[0-9]{1,2}\b"),
    token("mailgun-private-api-token", &["key-"], r"key-[a-f0-9]{32}\b"),
    token("twilio-api-key", &["sk"], r"SK[a-f0-9]{32}\b"),
    token("slack-token", &["xoxb-", "xoxp-", "xoxa-", "xoxr-", "xoxs-", "xoxo-", "xoxe-", "xoxe.xox", "xapp-"], SLACK),
    within(
        "slack-webhook-url",
        &["hooks.slack.com/"],
        r"hooks\.slack\.com/(?:services|workflows|triggers)/([A-Za-z0-9+/]{40,60})",
        Ask::Nothing,
    ),
    within(
        "discord-webhook-url",
        &["/api/webhooks/"],
        r"discord(?:app)?\.com/api/webhooks/[0-9]{16,20}/([A-Za-z0-9_-]{60,72})",
        Ask::Nothing,
    ),
    within(
        "microsoft-teams-webhook",
        &[".webhook.office.com/"],
        r"\.webhook\.office\.com/webhookb2/([A-Za-z0-9@/-]{60,220})",
        Ask::Nothing,
    ),
    token("telegram-bot-api-token", &[":aa"], r"[0-9]{8,10}:AA[A-Za-z0-9_-]{33}\b"),
    token("stripe-access-token", &["sk_test_", "sk_live_", "rk_test_", "rk_live_", "sk_prod_", "rk_prod_"], STRIPE),
    token("stripe-webhook-secret", &["whsec_"], r"whsec_[A-Za-z0-9+/]{32,64}={0,2}"),
    token("square-token", &["sq0atp-", "sq0csp-"], r"sq0(?:atp-[A-Za-z0-9_-]{22}|csp-[A-Za-z0-9_-]{43})"),
    token("shopify-token", &["shpat_", "shpca_", "shppa_", "shpss_"], r"shp(?:at|ca|pa|ss)_[A-Fa-f0-9]{32}\b"),
    token("shippo-api-token", &["shippo_"], r"shippo_(?:live|test)_[A-Fa-f0-9]{40}\b"),
    token("easypost-api-token", &["ezak", "eztk"], r"EZ[AT]K[A-Za-z0-9]{54}\b"),
    token("adobe-client-secret", &["p8e-"], r"p8e-[A-Za-z0-9]{32}\b"),
    token("maxmind-license-key", &["_mmk"], r"[A-Za-z0-9]{6}_[A-Za-z0-9]{29}_mmk\b"),
    token("airtable-personnal-access-token", &["pat"], r"pat[A-Za-z0-9]{14}\.[a-f0-9]{64}\b"),
    // Whatever the vendor.
    token("jwt", &["eyj"], r"eyJ[A-Za-z0-9_-]{14,}\.eyJ[A-Za-z0-9_-]{14,}\.[A-Za-z0-9_-]{10,}"),
    within("authorization", &["authorization"], AUTHORIZATION, Ask::Mixed),
    within("bearer-token", &["bearer"], r"(?i)\bbearer\s+([a-z0-9._~+/=-]{20,})", Ask::Mixed),
    within(
        "api-key-header",
        &["api-key", "auth-token", "private-token", "vault-token", "subscription-key"],
        r#"(?i)\b(?:x-api-key|api-key|x-goog-api-key|x-auth-token|private-token|x-vault-token|ocp-apim-subscription-key)["'`\\]{0,4}\s*:\s*["'`\\]{0,4}([a-z0-9._~+/=-]{16,})"#,
        Ask::Mixed,
    ),
    within(
        "url-password",
        &["://"],
        // Up to the last `@`: those who have one in their password seldom write %40.
        r#"(?i)\b[a-z][a-z0-9+.-]{1,20}://[^\s/?#"'`<>@:\\]{0,128}:([^\s/?#"'`<>\\]+)@[a-z0-9\[$_{<%]"#,
        Ask::Literal,
    ),
    within("connection-string-password", &["password", "pwd"], CONNECTION, Ask::Literal),
    within("libpq-password", &["password"], LIBPQ, Ask::Literal),
    within("client-password-variable", &["pgpassword", "mysql_pwd", "rediscli_auth", "sshpass"], CLIENT, Ask::Literal),
    within("netrc-password", &["machine", "login"], r"\bmachine\s+\S+\.\S+\s+login\s+\S+\s+password\s+([^\s\x22\\]{4,})", Ask::Literal),
];

const OPENAI: &str = r"sk-(?:(?:proj|svcacct|admin)-[A-Za-z0-9_-]{40,200}|[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20}\b)";
const GITLAB: &str = r"gl(?:pat|dt|rt|ft|soat|imt)-[A-Za-z0-9_.-]{20,320}|glcbt-[A-Za-z0-9]{1,5}_[A-Za-z0-9_-]{20,}|glptt-[a-f0-9]{40}\b|glagent-[A-Za-z0-9_-]{50}|gloas-[A-Za-z0-9_-]{64}";
const SLACK: &str = r"(?:xox[abeoprs](?:\.xox[bp])?-(?:[0-9]{1,14}-)?[A-Za-z0-9-]{10,250}|xapp-[0-9]-[A-Za-z0-9]+-[0-9]+-[A-Za-z0-9]+)";
const STRIPE: &str = r"(?:sk|rk)_(?:test|live|prod)_[A-Za-z0-9]{10,99}\b";
/// With a colon, as headers and JSON have it; with a comma, as calls have it, only before a scheme; as name and value, as
/// lists of headers have it.
const AUTHORIZATION: &str = r#"(?i)authorization["'`\\]{0,4}\s*(?:(?:[:=]|,\s*["'`\\]{0,4}value["'`\\]{0,4}\s*:)\s*["'`\\]{0,4}(?:(?:bearer|token|basic|bot|apikey|api-key|key|splunk|digest|negotiate|ntlm|ssws|oauth|dpop|hawk|geniekey|aws4-hmac-sha256)\s+)?|,\s*["'`\\]{0,4}(?:bearer|token|basic|negotiate|ssws)\s+)([a-z0-9._~+/=-]{8,})"#;

/// A value in quotes in a connection string. Where a program puts the string together, an operator follows the first quote, and
/// where JSON goes on, one of its signs.
macro_rules! quoted {
    ($open:literal, $close:literal) => {
        concat!(
            "(?:'",
            $open,
            r#"[^'"\n\s+.&%|,;:)\]}](?:[^'"\n]|'')*"#,
            $close,
            r#"'|""#,
            $open,
            r#"[^"\n\s+.&%|,;:)\]}][^"\n]*"#,
            $close,
            "\""
        )
    };
}
/// `Server=…;Database=…;User Id=…;Password=…`, as ADO.NET, ODBC and JDBC have it. Up to the first password: another may follow
/// with a server of its own.
const CONNECTION: &str = concat!(
    r#"(?i)\b(?:server|data source|host|hostname|address|database|initial catalog|dbname|user id|uid|user|username)\s?=\s?"#,
    quoted!("", ""),
    r#"|[^;"'\n\\]*)\s?;(?:[a-z ]{2,40}=\s?"#,
    quoted!("", ""),
    r#"|[^;"'\n\\]*)\s?;)*?\s?(?:password|pwd)\s?=\s?"#,
    quoted!("(", ")"),
    r#"|([^;"'\n\\\s]+))"#
);
/// `host=… user=… password=…`, as libpq has it; likewise.
const LIBPQ: &str = r#"\b(?:host|hostaddr|port|dbname|user)\s?=\s?(?:'(?:[^'"\n\\]|\\[^"\n])*'|[^\s"'\\]+)\s+(?:[a-z_]{2,30}\s?=\s?(?:'(?:[^'"\n\\]|\\[^"\n])*'|[^\s"'\\]+)\s+)*?password\s?=\s?(?:'([^'"\n\\\s+.&%|,;:)\]}](?:[^'"\n\\]|\\[^"\n])*)'|([^\s"'\\]+))"#;
/// `PGPASSWORD=… psql`, in quotes or without.
const CLIENT: &str =
    concat!(r"\b(?:PGPASSWORD|MYSQL_PWD|REDISCLI_AUTH|SSHPASS)\s?[=:]\s?", quoted!("(", ")"), r#"|["']?([^\s"'\\;&|]{4,}))"#);
