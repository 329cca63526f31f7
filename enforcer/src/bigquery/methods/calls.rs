//! Every gRPC method of BigQuery's storage API, and what becomes of it: data, no code. One that is not here is refused; a test holds this
//! table against the methods of BigQuery's own client.

use enforcer_proto::query::Method;

use super::{Access, Judged, METASTORE, WRITE_STREAMS};
use Judged::{As, Refused};

const OLD: &str = "only v1 of the storage API is spoken here";

/// One method.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// Its path.
    pub path: &'static str,
    /// What it does.
    pub access: Access,
    /// Where it says what it is about.
    pub names: &'static str,
    /// What becomes of it; it has no parameters.
    pub judged: Judged,
}

/// The lines of a service: those of one kind share what is said of them.
macro_rules! calls {
    ($($service:literal $access:ident { $($name:literal $names:literal => $judged:expr;)+ })+) => {
        /// The methods.
        pub const CALLS: &[Call] = &[$($(Call {
            path: concat!("/google.cloud.bigquery.storage.", $service, "/", $name),
            access: Access::$access,
            names: $names,
            judged: $judged,
        }),+),+];
    };
}

calls! {
    "v1.BigQueryRead" Read {
        "CreateReadSession" "message: parent, read_session.table" => As(Method::StorageCreateReadSession, &[]);
        "ReadRows" "message: a stream of the window's own" => As(Method::StorageReadRows, &[]);
        "SplitReadStream" "message: a stream of the window's own" => As(Method::StorageSplitReadStream, &[]);
    }
    "v1beta2.BigQueryRead" Read {
        "CreateReadSession" "message" => Refused(OLD);
        "ReadRows" "message" => Refused(OLD);
        "SplitReadStream" "message" => Refused(OLD);
    }
    "v1beta1.BigQueryStorage" Read {
        "CreateReadSession" "message" => Refused(OLD);
        "ReadRows" "message" => Refused(OLD);
        "BatchCreateReadSessionStreams" "message" => Refused(OLD);
        "FinalizeStream" "message" => Refused(OLD);
        "SplitReadStream" "message" => Refused(OLD);
    }
    "v1.BigQueryWrite" Write {
        "CreateWriteStream" "message" => Refused(WRITE_STREAMS);
        "AppendRows" "messages" => Refused(WRITE_STREAMS);
        "GetWriteStream" "message" => Refused(WRITE_STREAMS);
        "FinalizeWriteStream" "message" => Refused(WRITE_STREAMS);
        "BatchCommitWriteStreams" "message" => Refused(WRITE_STREAMS);
        "FlushRows" "message" => Refused(WRITE_STREAMS);
    }
    "v1beta2.BigQueryWrite" Write {
        "CreateWriteStream" "message" => Refused(WRITE_STREAMS);
        "AppendRows" "messages" => Refused(WRITE_STREAMS);
        "GetWriteStream" "message" => Refused(WRITE_STREAMS);
        "FinalizeWriteStream" "message" => Refused(WRITE_STREAMS);
        "BatchCommitWriteStreams" "message" => Refused(WRITE_STREAMS);
        "FlushRows" "message" => Refused(WRITE_STREAMS);
    }
    "v1alpha.MetastorePartitionService" Ddl {
        "BatchCreateMetastorePartitions" "message" => Refused(METASTORE);
        "BatchDeleteMetastorePartitions" "message" => Refused(METASTORE);
        "BatchUpdateMetastorePartitions" "message" => Refused(METASTORE);
        "ListMetastorePartitions" "message" => Refused(METASTORE);
        "StreamMetastorePartitions" "messages" => Refused(METASTORE);
    }
    "v1beta.MetastorePartitionService" Ddl {
        "BatchCreateMetastorePartitions" "message" => Refused(METASTORE);
        "BatchDeleteMetastorePartitions" "message" => Refused(METASTORE);
        "BatchUpdateMetastorePartitions" "message" => Refused(METASTORE);
        "ListMetastorePartitions" "message" => Refused(METASTORE);
        "StreamMetastorePartitions" "messages" => Refused(METASTORE);
    }
}
