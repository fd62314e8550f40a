@preconcurrency import AVFoundation
import MViTCoreML

/// The back camera as a stream of upright 32BGRA frames.
///
/// Unchecked: the session, its output and the continuation are touched on the queue alone; the
/// preview layer only reads the session, which AVFoundation allows from any thread.
final class Camera: NSObject, @unchecked Sendable {
  /// Why there are no frames.
  enum Failure: Error {
    case noCamera
  }

  let session = AVCaptureSession()
  private let output = AVCaptureVideoDataOutput()
  private let queue = DispatchQueue(label: "camera", qos: .userInitiated)
  private var continuation: AsyncStream<Photo>.Continuation?

  /// The camera that is used; `nil` in the simulator.
  var device: AVCaptureDevice? {
    AVCaptureDevice.default(.builtInWideAngleCamera, for: .video, position: .back)
  }

  /// Whether the app may use the camera; asks the user the first time.
  static func isAllowed() async -> Bool {
    switch AVCaptureDevice.authorizationStatus(for: .video) {
    case .authorized: true
    case .notDetermined: await AVCaptureDevice.requestAccess(for: .video)
    default: false
    }
  }

  /// Starts the camera. Of frames that come while one is worked on, only the newest is kept.
  func frames() async throws -> AsyncStream<Photo> {
    let (stream, continuation) = AsyncStream.makeStream(
      of: Photo.self, bufferingPolicy: .bufferingNewest(1))
    try await withCheckedThrowingContinuation { (done: CheckedContinuation<Void, any Error>) in
      queue.async {
        let configured = Result { try self.configure() }
        if case .success = configured {
          self.continuation = continuation
          self.session.startRunning()
        }
        done.resume(with: configured)
      }
    }
    return stream
  }

  /// Stops the camera and ends the stream.
  func stop() {
    queue.async {
      self.session.stopRunning()
      self.continuation?.finish()
      self.continuation = nil
    }
  }

  /// Turns the frames upright for how the device is held, in degrees.
  func rotateFrames(by angle: CGFloat) {
    queue.async {
      guard let connection = self.output.connection(with: .video),
        connection.isVideoRotationAngleSupported(angle)
      else { return }
      connection.videoRotationAngle = angle
    }
  }

  private func configure() throws {
    guard session.inputs.isEmpty else { return }
    guard let device, let input = try? AVCaptureDeviceInput(device: device) else {
      throw Failure.noCamera
    }
    session.beginConfiguration()
    defer { session.commitConfiguration() }
    session.sessionPreset = .hd1280x720
    output.videoSettings = [
      kCVPixelBufferPixelFormatTypeKey as String: Int(kCVPixelFormatType_32BGRA)
    ]
    output.alwaysDiscardsLateVideoFrames = true
    output.setSampleBufferDelegate(self, queue: queue)
    guard session.canAddInput(input), session.canAddOutput(output) else { throw Failure.noCamera }
    session.addInput(input)
    session.addOutput(output)
  }
}

extension Camera: AVCaptureVideoDataOutputSampleBufferDelegate {
  func captureOutput(
    _ output: AVCaptureOutput, didOutput sampleBuffer: CMSampleBuffer,
    from connection: AVCaptureConnection
  ) {
    guard let buffer = sampleBuffer.imageBuffer else { return }
    continuation?.yield(Photo(buffer))
  }
}
