/**
 * Keys of Anchore's `config.yaml` that mean nothing here: they are named in one warning, so that nobody waits for what they did. Keys that are
 * neither these nor known are named in another one: they may be misspelt.
 */

const words = (text: string) => new Set(text.split(/\s+/).filter(Boolean));

const topLevel = words(`
  service_dir host_id log_level log_format image_analyze_timeout_seconds cleanup_images allow_awsecr_iam_auto internal_ssl_verify auto_restart_services
  metrics docker_conn docker_conn_timeout default_admin_password default_admin_email default_admin_username default_bundle_file keys user_authentication
  webhooks max_compressed_image_size_mb global_client_connect_timeout global_client_read_timeout server_request_timeout_seconds
  keep_image_analysis_tmpfiles enable_owned_package_filtering license_file events notifications feeds policy_bundles_dir external_service_auths
  max_source_import_size_mb max_import_content_size_mb account_gc audit skopeo_global_timeout hints_enabled malware reporting
`);

const serviceNames = words(`
  apiext catalog simplequeue analyzer policy_engine kubernetes_webhook feeds rbac_manager rbac_authorizer reports reports_worker notifications ui
  runtime_inventory component_catalog data_syncer enterprise feeds_exporter
`);

const anyService = words(`
  enabled require_auth endpoint_hostname listen port external_hostname external_port external_tls ssl_enable ssl_cert ssl_key ssl_chain
  authorization_handler authorization_handler_config cycle_timers cycle_timer_seconds server threads max_request_threads
`);

const ofService: Readonly<Record<string, ReadonlySet<string>>> = {
  catalog:
    words(`event_log events runtime_inventory image_gc account_prevent_deletion down_analyzer_task_requeue runtime_compliance
    image_analyze_timeout_seconds sbom_vuln_scan audit`),
  analyzer: words("analyzer_driver max_threads enable_hints keep_image_analysis_tmpfiles cycle_timer image_analyzer"),
  policy_engine: words(
    "enable_package_db_load enable_images_by_vulnerability_api vulnerabilities overrides policy_evaluation_cache_ttl",
  ),
  apiext: words("external swagger_validation"),
};

/** Known to the original, at any depth below these paths. */
export function isOriginalKey(path: readonly string[]): boolean {
  const [top = "", second, third] = path;
  if (top === "credentials") return second === "database" ? isDatabaseKey(path.slice(2)) : second === "users";
  if (top !== "services") return topLevel.has(top);
  if (second === undefined) return false;
  if (third === undefined) return serviceNames.has(second);
  return (
    serviceNames.has(second) && (anyService.has(third) || (ofService[second]?.has(third) ?? !(second in ofService)))
  );
}

function isDatabaseKey([key = ""]: readonly string[]): boolean {
  return ["db_echo", "db_engine_args", "db_driver", "db_pool_recycle", "db_pool_timeout", "db_pool_pre_ping"].includes(
    key,
  );
}
