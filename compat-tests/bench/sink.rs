//! A broker that throws everything away. What a client reaches against it is the client's own limit, and the CPU time
//! it takes is the price of merely receiving the bytes.
//!
//! It answers ApiVersions, Metadata, CreateTopics, DeleteTopics, ListOffsets,
//! InitProducerId and Produce, and leads every partition of every
//! topic; a topic has as many partitions as the command line says.

use std::{
    io::{self, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
};

use crate::wire::{
    API_VERSIONS, CREATE_TOPICS, CREATE_TOPICS_VERSION, DELETE_TOPICS, DELETE_TOPICS_VERSION, Decoder, Encoder,
    INIT_PRODUCER_ID, LIST_OFFSETS, LIST_OFFSETS_VERSION, METADATA, METADATA_VERSION, PRODUCE, PRODUCE_VERSION, failed,
    read_frame,
};

const UNSUPPORTED_VERSION: i16 = 35;
/// Key, lowest and highest version.
const SERVED: [(i16, i16, i16); 7] = [
    (PRODUCE, PRODUCE_VERSION, PRODUCE_VERSION),
    (METADATA, METADATA_VERSION, METADATA_VERSION),
    (LIST_OFFSETS, LIST_OFFSETS_VERSION, LIST_OFFSETS_VERSION),
    (API_VERSIONS, 0, 0),
    (CREATE_TOPICS, CREATE_TOPICS_VERSION, CREATE_TOPICS_VERSION),
    (DELETE_TOPICS, DELETE_TOPICS_VERSION, DELETE_TOPICS_VERSION),
    (INIT_PRODUCER_ID, 0, 0),
];

/// Serves until the process is killed.
pub fn serve(port: u16, partitions: usize) -> io::Result<()> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port)))?;
    for stream in listener.incoming() {
        let stream = stream?;
        // A client that goes away ends its thread with an error that nobody needs.
        thread::spawn(move || connection(stream, port, partitions));
    }
    Ok(())
}

fn connection(mut stream: TcpStream, port: u16, partitions: usize) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    loop {
        let answer = answer(Decoder(read_frame(&mut stream, &mut buffer)?), port, partitions)?;
        stream.write_all(&answer)?;
    }
}

fn answer(mut request: Decoder<'_>, port: u16, partitions: usize) -> io::Result<Vec<u8>> {
    let (key, version, correlation) = (request.i16()?, request.i16()?, request.i32()?);
    request.string()?;
    let mut answer = Encoder::answer(correlation);
    match key {
        API_VERSIONS => {
            answer.i16(if version == 0 { 0 } else { UNSUPPORTED_VERSION }).count(SERVED.len());
            for (key, lowest, highest) in SERVED {
                answer.i16(key).i16(lowest).i16(highest);
            }
        }
        METADATA => metadata(&mut request, &mut answer, port, partitions)?,
        CREATE_TOPICS => {
            request.i32()?;
            let topic = String::from_utf8_lossy(request.string()?).into_owned();
            answer.i32(0).count(1).string(&topic).i16(0).i16(-1);
        }
        DELETE_TOPICS => {
            request.i32()?;
            let topic = String::from_utf8_lossy(request.string()?).into_owned();
            answer.i32(0).count(1).string(&topic).i16(0);
        }
        LIST_OFFSETS => {
            // Of one partition, as our own client asks.
            answer.count(1).string("").count(1).i32(0).i16(0).i64(-1).i64(0);
        }
        INIT_PRODUCER_ID => {
            answer.i32(0).i16(0).i64(1).i16(0);
        }
        PRODUCE => produce(&mut request, &mut answer)?,
        key => return Err(failed(format!("api key {key}"))),
    }
    Ok(answer.frame())
}

fn metadata(request: &mut Decoder<'_>, answer: &mut Encoder, port: u16, partitions: usize) -> io::Result<()> {
    answer.i32(0).count(1).i32(0).string("127.0.0.1").i32(i32::from(port)).i16(-1).i16(-1).i32(0);
    let topics = request.i32()?.max(0);
    answer.i32(topics);
    for _ in 0..topics {
        let topic = String::from_utf8_lossy(request.string()?).into_owned();
        answer.i16(0).string(&topic).i8(0).count(partitions);
        for partition in 0..partitions {
            answer.i16(0).i32(partition as i32).i32(0).count(1).i32(0).count(1).i32(0);
        }
    }
    Ok(())
}

fn produce(request: &mut Decoder<'_>, answer: &mut Encoder) -> io::Result<()> {
    request.string()?;
    request.i16()?;
    request.i32()?;
    let topics = request.i32()?;
    answer.i32(topics);
    for _ in 0..topics {
        let topic = String::from_utf8_lossy(request.string()?).into_owned();
        let batches = request.i32()?;
        answer.string(&topic).i32(batches);
        for _ in 0..batches {
            let partition = request.i32()?;
            request.bytes()?;
            answer.i32(partition).i16(0).i64(0).i64(-1).i64(0);
        }
    }
    answer.i32(0);
    Ok(())
}
