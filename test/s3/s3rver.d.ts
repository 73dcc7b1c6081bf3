declare module "s3rver" {
  /** What tests use of it. */
  export default class S3rver {
    constructor(options: {
      readonly port: number;
      readonly address: string;
      readonly directory: string;
      readonly silent: boolean;
      readonly vhostBuckets: boolean;
    });
    readonly middleware: unknown[];
    readonly store: {
      putMetadata(bucket: string, key: string, metadata: unknown, md5: string): Promise<void>;
    };
    readonly httpServer: import("node:http").Server;
    run(): Promise<{ readonly port: number }>;
    close(): Promise<void>;
  }
}
